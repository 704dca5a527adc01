// What the page shows, as plain data; its address holds all of it, so that every view can be linked to.

const DEFAULTS = {
  layer: 'month', month: '', image: 'near', colours: 'inferno', opacity: 100, outlines: true, tab: 'view',
  swipe: false, cut: 50, layer2: 'month', month2: '', image2: 'near',
  at: '', pixel: '', event: '',
  stage: '', confidence: '', since: '', until: '', min_area_m2: '', sort: 'first_date',
};

export const FILTER = ['stage', 'confidence', 'since', 'until', 'min_area_m2', 'sort'];

export class State extends EventTarget {
  constructor() {
    super();
    /** Gives changes that make values fit the data; set once these are known. */
    this.fit = () => ({});
    this.values = { ...DEFAULTS, ...parse(location.hash) };
    window.addEventListener('hashchange', () => {
      // An address without a value is a plain anchor, such as that of the link that skips the map.
      if (location.hash === this.written || !location.hash.includes('=')) return;
      const asked = { ...DEFAULTS, ...parse(location.hash) };
      this.set({ ...asked, ...this.fit(asked) }, { write: false });
    });
  }

  /** Change some values; listeners hear which ones differ from before. */
  set(changes, { write = true } = {}) {
    const changed = new Set(Object.keys(changes).filter((key) => this.values[key] !== changes[key]));
    if (!changed.size) return;
    Object.assign(this.values, changes);
    if (write) this.write();
    this.dispatchEvent(new CustomEvent('change', { detail: changed }));
  }

  on(keys, listener) {
    this.addEventListener('change', ({ detail }) => {
      if (keys.some((key) => detail.has(key))) listener(this.values, detail);
    });
  }

  /** The address of the current view. */
  hash(extra = {}) {
    const all = { ...this.values, ...extra };
    const kept = Object.entries(all).filter(([key, value]) => value !== DEFAULTS[key]);
    return `#${new URLSearchParams(kept.map(([key, value]) => [key, String(value)]))}`;
  }

  write() {
    this.written = this.hash();
    history.replaceState(null, '', this.written === '#' ? location.pathname : this.written);
    this.written = location.hash;
  }
}

function parse(hash) {
  const found = {};
  for (const [key, text] of new URLSearchParams(hash.slice(1))) {
    if (!(key in DEFAULTS) || text.length > 200) continue;
    const usual = DEFAULTS[key];
    if (typeof usual === 'boolean') found[key] = text === 'true';
    else if (typeof usual === 'number') found[key] = Number.isFinite(Number(text)) ? Number(text) : usual;
    else found[key] = text;
  }
  if (!found.tab && (found.event || found.pixel)) found.tab = found.event ? 'events' : 'pixel';
  return found;
}
