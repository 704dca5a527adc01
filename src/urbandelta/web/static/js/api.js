// Requests to the server that this page came from.

/** JSON of an address; throws an Error with the server's reason. */
export async function getJson(path, { signal } = {}) {
  const answer = await fetch(path, { signal });
  if (!answer.ok) throw new Error(await reason(answer));
  return answer.json();
}

/** Fetch a file and hand it to the browser's downloads. */
export async function save(path) {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(await reason(answer));
  const named = /filename="?([^";]+)"?/.exec(answer.headers.get('content-disposition') ?? '');
  const last = new URL(path, location.href).pathname.split('/').pop();
  saveBlob(await answer.blob(), named ? named[1] : last);
}

export function saveBlob(blob, name) {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

async function reason(answer) {
  try {
    return (await answer.json()).detail;
  } catch {
    return `the server answered ${answer.status}`;
  }
}

/** Query string of what is neither empty nor null. */
export function query(values) {
  const used = Object.entries(values).filter(([, value]) => value !== '' && value !== null && value !== undefined);
  return used.length ? `?${new URLSearchParams(used)}` : '';
}
