// The history of one pixel: chart, table, link.

import { $, make, monthName, shortDay } from './dom.js';
import { getJson, query } from './api.js';
import { drawChart, summarise } from './chart.js';

export class PixelPane {
  constructor(state, map) {
    Object.assign(this, { state, map, history: null, window: 0 });
    $('place').addEventListener('submit', (event) => {
      event.preventDefault();
      const { latitude, longitude } = event.target.elements;
      this.choose(Number(longitude.value), Number(latitude.value));
    });
    $('centre').addEventListener('click', () => this.chooseCentre());
    map.map.on('click', ({ lngLat }) => this.choose(lngLat.lng, lngLat.lat));
    map.map.getCanvas().addEventListener('keydown', (event) => {
      if (event.key === 'Enter') this.chooseCentre();
    });
    state.on(['pixel'], () => this.load());
    state.on(['month', 'tab'], () => this.draw());
    new ResizeObserver(() => this.draw()).observe($('pane-pixel'));
    if (state.values.pixel) this.load();
  }

  choose(longitude, latitude) {
    this.state.set({ pixel: `${longitude.toFixed(6)},${latitude.toFixed(6)}`, tab: 'pixel' });
  }

  chooseCentre() {
    const { lng, lat } = this.map.map.getCenter();
    this.choose(lng, lat);
  }

  async load() {
    this.request?.abort();
    const { pixel } = this.state.values;
    if (!pixel) {
      this.history = null;
      this.map.setData('pixel', null);
      $('pixel').replaceChildren();
      return;
    }
    const request = (this.request = new AbortController());
    const [longitude, latitude] = pixel.split(',');
    $('pixel-status').textContent = 'Reading the history of this pixel …';
    try {
      this.history = await getJson(`/api/pixel${query({ longitude, latitude })}`, { signal: request.signal });
    } catch (error) {
      if (request.signal.aborted) return;
      this.history = null;
      this.map.setData('pixel', null);
      $('pixel').replaceChildren();
      $('pixel-status').textContent = `No history: ${error.message}.`;
      return;
    }
    const { corners, latitude: lat, longitude: lng } = this.history;
    const form = $('place').elements;
    [form.latitude.value, form.longitude.value] = [lat.toFixed(6), lng.toFixed(6)];
    this.map.setData('pixel', { type: 'Feature', properties: {}, geometry: { type: 'LineString', coordinates: corners } });
    $('pixel-status').textContent = summarise(this.history);
    this.window = nearest(this.history.score?.middle ?? [], this.state.values.month);
    this.draw({ anew: true });
  }

  draw({ anew = false } = {}) {
    if (!this.history || $('pane-pixel').hidden) return;
    const { history, state } = this;
    const width = Math.max(Math.floor($('pixel').clientWidth), 240);
    if (!anew && this.drawn === `${width} ${state.values.month} ${state.values.pixel}`) return;
    this.drawn = `${width} ${state.values.month} ${state.values.pixel}`;
    const chart = drawChart(history, { width, month: state.values.month, label: `History of the pixel. ${summarise(history)}` });
    const reader = make('div', { class: 'chart-box' }, chart.svg);
    const said = make('p', { class: 'reading', role: 'status' });
    const step = make('input', {
      type: 'range', min: 0, max: Math.max((history.score?.score.length ?? 1) - 1, 0), step: 1, value: this.window,
      'aria-label': 'Window of the chart', class: 'reader',
    });
    step.addEventListener('input', () => this.read(chart, step, said));
    chart.svg.addEventListener('click', (event) => {
      const box = chart.svg.getBoundingClientRect();
      const month = chart.monthAt((event.clientX - box.left) * (width / box.width));
      if (this.map.area.months.some(({ label }) => label === month)) state.set({ month });
    });
    const old = $('pixel').querySelector('details');
    const events = history.events.length
      ? make('p', {}, 'Part of event ', ...history.events.flatMap((id, k) => [k ? ', ' : '', make('a', { href: state.hash({ event: id, tab: 'events' }), text: id })]))
      : null;
    const focused = document.activeElement?.classList.contains('reader');
    $('pixel').replaceChildren(...[events, reader, history.score ? step : null, history.score ? said : null,
      anew || !old ? this.tables() : old].filter(Boolean));
    if (history.score) this.read(chart, step, said);
    if (focused) step.focus();
  }

  read(chart, step, said) {
    const score = this.history.score;
    const k = (this.window = Number(step.value));
    const value = score.score[k] === null ? 'no score' : `score ${score.score[k].toFixed(2)}`;
    const text = `${monthName(score.middle[k].slice(0, 7))}: ${value}, window ${shortDay(score.start[k])} to ${shortDay(score.end[k])}, `
      + `${score.n_obs[k]} observations${score.provisional[k] ? ', provisional' : ''}`;
    said.textContent = text;
    step.setAttribute('aria-valuetext', text);
    const at = chart.x(Date.parse(`${score.middle[k]}T00:00:00Z`));
    chart.cursor.setAttribute('x1', at);
    chart.cursor.setAttribute('x2', at);
    chart.cursor.setAttribute('visibility', 'visible');
  }

  /** The same as tables, made when they are opened. */
  tables() {
    const box = make('details', { class: 'tables' }, make('summary', { text: 'As a table' }));
    box.addEventListener('toggle', () => {
      if (!box.open || box.childElementCount > 1) return;
      const { score, streams, indices } = this.history;
      if (score) {
        const rows = score.score.map((value, k) => [shortDay(score.start[k]), shortDay(score.end[k]), value?.toFixed(3) ?? '–',
          score.n_obs[k], score.provisional[k] ? 'yes' : '']);
        box.append(table('Scores', ['From', 'To', 'Score', 'Observations', 'Provisional'], rows));
      }
      for (const index of indices) {
        box.append(table(index.title, ['Date', 'Value'], index.times.map((t, k) => [shortDay(t), index.values[k]?.toFixed(3) ?? '–'])));
      }
      for (const stream of streams) {
        const bands = Object.keys(stream.values);
        const rows = stream.times.map((t, k) => [shortDay(t), stream.platforms[k], ...bands.map((band) => {
          const value = stream.values[band][k];
          return value === null ? '–' : value.toFixed(stream.kind === 'sar' ? 1 : 3);
        }), stream.valid[k] ? '' : stream.reasons[k] || 'masked']);
        box.append(table(`${stream.title}, ${stream.units}`, ['Date', 'Satellite', ...bands, 'Masked'], rows));
      }
    });
    return box;
  }
}

/** Number of the window whose middle is nearest to the middle of a month. */
function nearest(middles, month) {
  const distance = (text) => Math.abs(Date.parse(text) - Date.parse(`${month}-15`));
  return middles.reduce((best, text, k) => (distance(text) < distance(middles[best]) ? k : best), 0);
}

function table(caption, heads, rows) {
  const head = make('tr', {}, ...heads.map((text) => make('th', { scope: 'col', text })));
  const body = rows.map((row) => make('tr', {}, ...row.map((text) => make('td', { text: String(text) }))));
  const inner = make('table', {}, make('caption', { text: caption }), make('thead', {}, head), make('tbody', {}, ...body));
  return make('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': caption }, inner);
}
