// Starts the page: asks what there is, then wires the parts to the state.

import { $, make, monthName, option, setOptions, shortDay } from './dom.js';
import { getJson } from './api.js';
import { AreaMap } from './map.js';
import { EventsPane } from './events.js';
import { FilesPane } from './files.js';
import { PixelPane } from './pixel.js';
import { Sides } from './sides.js';
import { State } from './state.js';
import { Swipe } from './swipe.js';
import { Timeline } from './timeline.js';
import { drawLegend } from './legend.js';
import { startTabs } from './tabs.js';
import { startTheme } from './theme.js';

const PROVENANCE = {
  weights_name: 'Weights', weights_sha256: 'Weights, SHA-256', cube_url: 'Cube', cube_snapshot: 'Cube, snapshot',
  version: 'urbandelta', era: 'Era', members: 'Ensemble',
};

async function start() {
  const state = new State();
  startTabs(state);
  const area = await getJson('/api/area');
  const acquisitions = area.optical ? (await getJson(`/api/acquisitions/${area.optical}`)).acquisitions : [];
  const sides = new Sides(area, acquisitions);
  state.fit = (values) => fitting(values, area, sides);
  state.set(state.fit(state.values), { write: false });
  describe(area);

  const left = new AreaMap($('map-left'), area, { at: AreaMap.parseAt(state.values.at) });
  const swipe = new Swipe(state, left, area);
  startTheme(() => [left, swipe.right].forEach((map) => map?.recolour()));
  left.map.addControl(new window.maplibregl.NavigationControl({ showCompass: false }), 'top-right');
  left.map.addControl(new window.maplibregl.ScaleControl({ maxWidth: 110 }), 'bottom-right');
  left.onproblem = problem;
  left.map.on('moveend', () => state.set({ at: left.at }));

  let shown = Promise.resolve();
  const draw = () => {
    const { values } = state;
    const each = [['left', left]];
    if (values.swipe) each.push(['right', swipe.open()]);
    shown = Promise.all(each.flatMap(([side, map]) => {
      const choice = sides.of(values, side);
      return [map.show('image', sides.imageTiles(choice)), map.show('layer', sides.layerTiles(choice, values.colours), values.opacity / 100)];
    }));
    drawLegend(sides, values);
    $('stage').dataset.month = values.month;
  };

  const events = new EventsPane(state, () => [left, swipe.right].filter(Boolean), area);
  new PixelPane(state, left);
  new FilesPane(state, sides, left, { swipe: () => swipe, filter: () => events.wanted });
  new Timeline(state, area, () => shown);
  controls(state, sides);
  state.on(['layer', 'month', 'image', 'colours', 'opacity', 'swipe', 'layer2', 'month2', 'image2'], draw);
  state.on(['swipe'], () => { if (swipe.right) events.draw(swipe.right); });
  state.on(['outlines', 'swipe'], () => [left, swipe.right].forEach((map) => map?.setOutlines(state.values.outlines)));
  state.on(['at'], ({ at }) => {
    const to = at !== left.at && AreaMap.parseAt(at);
    if (to) left.map.jumpTo(to);
  });
  swipe.place();
  draw();
  if (state.values.swipe) events.draw(swipe.right);
  if (!state.values.outlines) left.setOutlines(false);
  await left.ready;
  await shown;
  document.documentElement.dataset.ready = 'yes';
  // For tests and for the curious: what is shown, and the map itself.
  window.urbandelta = { state, map: left.map, swipe, shown: () => shown };
}

/** Fill in what the address leaves open, and drop what the data do not have. */
function fitting(values, area, sides) {
  const labels = area.months.map(({ label }) => label);
  const changes = {};
  if (!labels.includes(values.month)) changes.month = labels.at(-1) ?? '';
  if (values.month2 && !labels.includes(values.month2)) changes.month2 = '';
  const layers = new Set(sides.layerOptions().map(({ value }) => value));
  const images = new Set(sides.imageOptions().map(({ value }) => value));
  for (const key of ['layer', 'layer2']) if (!layers.has(values[key])) changes[key] = labels.length ? 'month' : 'none';
  for (const key of ['image', 'image2']) if (!images.has(values[key])) changes[key] = images.has('near') ? 'near' : 'none';
  if (!['inferno', 'viridis', 'cividis'].includes(values.colours)) changes.colours = 'inferno';
  changes.opacity = Math.min(Math.max(values.opacity, 10), 100);
  changes.cut = Math.min(Math.max(values.cut, 0), 100);
  return changes;
}

function describe(area) {
  document.title = `${area.name}: urban change`;
  $('name').textContent = area.name;
  const months = area.months;
  const parts = months.length ? [`${monthName(months[0].label)} to ${monthName(months.at(-1).label)}`] : ['no scores yet'];
  const acquisitions = area.streams.reduce((sum, { count }) => sum + count, 0);
  if (acquisitions) parts.push(`${acquisitions} acquisitions`);
  if (!area.complete) parts.push('scores are incomplete');
  $('summary').textContent = parts.join(' · ');
  const { height, width, pixel, crs } = area.grid;
  const rows = [['Grid', `${height} × ${width} px of ${pixel[1]} in ${crs}`],
    ...area.streams.map(({ title, count, first, last }) => [title, `${count} acquisitions, ${shortDay(first)} to ${shortDay(last)}`]),
    ...Object.entries(PROVENANCE).filter(([key]) => area.provenance[key]).map(([key, name]) => [name, area.provenance[key]])];
  $('provenance').replaceChildren(...rows.flatMap(([name, text]) => [make('dt', { text: name }), make('dd', { text })]));
}

/** Selects and switches of the View pane. */
function controls(state, sides) {
  const bind = (id, key, read = (field) => field.value, write = (field, value) => { field.value = value; }) => {
    $(id).addEventListener('input', () => state.set({ [key]: read($(id)) }));
    state.on([key], (values) => write($(id), values[key]));
    write($(id), state.values[key]);
  };
  const checked = [(field) => field.checked, (field, value) => { field.checked = value; }];
  setOptions($('layer-left'), sides.layerOptions());
  setOptions($('layer-right'), sides.layerOptions());
  setOptions($('image-left'), sides.imageOptions());
  setOptions($('image-right'), sides.imageOptions());
  setOptions($('month-right'), [option('', 'same as left'), ...sides.area.months.map(({ label }) => option(label, monthName(label)))]);
  bind('layer-left', 'layer');
  bind('layer-right', 'layer2');
  bind('image-left', 'image');
  bind('image-right', 'image2');
  bind('month-right', 'month2');
  bind('colours', 'colours');
  bind('opacity', 'opacity', (field) => Number(field.value));
  bind('outlines', 'outlines', ...checked);
  bind('swipe', 'swipe', ...checked);
  const arrange = ({ swipe, month2 }) => {
    $('right').hidden = !swipe;
    $('legend-left').textContent = swipe ? 'Left of the divider' : 'Map';
    // Two equal sides would look as if the divider did nothing.
    if (swipe && !month2 && sides.area.months.length > 1) state.set({ month2: sides.area.months[0].label });
  };
  state.on(['swipe'], arrange);
  arrange(state.values);
}

function problem(text) {
  const box = $('map-problem');
  box.textContent = `A part of the map cannot be shown: ${text}`;
  box.hidden = false;
  clearTimeout(problem.timer);
  problem.timer = setTimeout(() => { box.hidden = true; }, 8000);
}

start().catch((error) => {
  const box = $('map-problem');
  box.textContent = `This page cannot be shown: ${error.message}`;
  box.hidden = false;
  document.documentElement.dataset.ready = 'failed';
});
