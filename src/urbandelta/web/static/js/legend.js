// The legend: colours, scale and dates of what is drawn.

import { $, make, shortDay } from './dom.js';

const DAY_MS = 86_400_000;

export function drawLegend(sides, values) {
  const legend = $('legend');
  const choice = sides.of(values, 'left');
  const parts = [];
  const title = sides.layerTitle(choice);
  if (title && choice.layer !== 'none') {
    const map = sides.map(choice);
    const colours = sides.area.legends[values.colours + (sides.fades(choice) && !map?.dates ? '-fade' : '')];
    parts.push(make('p', { class: 'legend-title', text: title }), ...(map?.classes.length ? [classes(map)] : ramp(colours, map)));
    if (!map || map.name === 'score') parts.push(make('p', { class: 'key' }, make('i', { class: 'unknown' }), 'no score'));
  }
  const image = sides.imageTitle(choice);
  if (image) {
    parts.push(make('p', { class: 'legend-image', text: image }));
    if (sides.acquisition(choice).valid < 0.995) parts.push(make('p', { class: 'key' }, make('i', { class: 'hatched' }), 'masked'));
  }
  legend.replaceChildren(...parts);
  legend.hidden = !parts.length;
  const tag = (side) => [sides.layerTitle(sides.of(values, side)), sides.imageTitle(sides.of(values, side))].filter(Boolean)[0] ?? 'Nothing';
  for (const side of ['left', 'right']) {
    const element = $(`tag-${side}`);
    element.hidden = !values.swipe;
    element.textContent = sides.of(values, side).layer === 'none' ? sides.imageTitle(sides.of(values, side)) || 'Nothing' : tag(side);
  }
}

function ramp(colours, map) {
  const bar = make('div', { class: 'ramp' });
  bar.style.setProperty('--ramp', `linear-gradient(to right, ${colours.join(', ')})`);
  return [bar, make('div', { class: 'ends' }, ...ends(map))];
}

function classes(map) {
  return make('ul', { class: 'classes' }, ...map.classes.map(({ title, colour }) => {
    const swatch = make('i');
    swatch.style.setProperty('--swatch', colour);
    return make('li', {}, swatch, title);
  }));
}

function ends(map) {
  if (!map || map.name === 'score') return ['0', '0.5', '1'].map((text) => make('span', { text }));
  const text = (value) => {
    if (map.dates) return shortDay(new Date(value * DAY_MS).toISOString());
    return Number.isInteger(value) ? String(value) : value.toPrecision(2);
  };
  const unit = map.name === 'duration' ? ' days' : '';
  return [make('span', { text: text(map.low) }), make('span', { text: text(map.high) + unit })];
}
