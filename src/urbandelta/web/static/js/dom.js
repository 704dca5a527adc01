// Elements without markup in strings: what comes from the data can never become code.

export const $ = (id) => document.getElementById(id);

/** An element with attributes (`text` is its content, `on` its listeners) and children. */
export function make(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

/** As `make`, for SVG. */
export function draw(name, attributes = {}, ...children) {
  return fill(document.createElementNS('http://www.w3.org/2000/svg', name), attributes, children);
}

function fill(element, { text, on = {}, ...attributes }, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value === true) element.setAttribute(key, '');
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(key, value);
  }
  for (const [event, listener] of Object.entries(on)) element.addEventListener(event, listener);
  if (text !== undefined) element.textContent = text;
  element.append(...children.filter((child) => child !== null));
  return element;
}

export const option = (value, text, selected = false) => make('option', { value, text, selected });

/** Replace the options of a select, keeping its value where it still exists. */
export function setOptions(select, options, value) {
  select.replaceChildren(...options);
  select.value = value;
}

export const MONTHS = ['January', 'February', 'March', 'April', 'May', 'June', 'July', 'August', 'September',
  'October', 'November', 'December'];

/** "June 2021" of 2021-06. */
export function monthName(label) {
  const [year, month] = label.split('-');
  return `${MONTHS[Number(month) - 1]} ${year}`;
}

/** "3 June 2021" of 2021-06-03 with or without a time. */
export function dayName(text) {
  const [year, month, day] = text.slice(0, 10).split('-');
  return `${Number(day)} ${MONTHS[Number(month) - 1]} ${year}`;
}

/** "3 Jun 2021". */
export function shortDay(text) {
  const [year, month, day] = text.slice(0, 10).split('-');
  return `${Number(day)} ${MONTHS[Number(month) - 1].slice(0, 3)} ${year}`;
}

/** "1.2 ha", "3400 m²", "4.1 km²". */
export function areaName(m2) {
  if (m2 >= 1e6) return `${(m2 / 1e6).toFixed(1)} km²`;
  return m2 >= 1e4 ? `${(m2 / 1e4).toFixed(1)} ha` : `${Math.round(m2)} m²`;
}
