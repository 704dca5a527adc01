// The list of events: filters, a link to each, and the chosen one on the map.

import { $, areaName, make, shortDay } from './dom.js';
import { getJson, query } from './api.js';
import { FILTER } from './state.js';

const PAGE = 50;
const DELAY_MS = 250;

export class EventsPane {
  constructor(state, maps, area) {
    Object.assign(this, { state, maps, area, offset: 0, matched: 0 });
    const form = $('filter');
    form.addEventListener('submit', (event) => event.preventDefault());
    form.addEventListener('input', () => {
      clearTimeout(this.timer);
      this.timer = setTimeout(() => {
        const kept = FILTER.map((name) => [name, form.elements[name]]).filter(([, field]) => field.checkValidity());
        state.set(Object.fromEntries(kept.map(([name, field]) => [name, field.value])));
      }, DELAY_MS);
    });
    $('more').addEventListener('click', () => this.load({ more: true }));
    state.on(FILTER, () => this.load());
    state.on(['event'], () => this.choose());
    this.load();
    this.choose({ move: !state.values.at });
  }

  /** The filter as the server takes it. */
  get wanted() {
    const { sort: _, ...filter } = Object.fromEntries(FILTER.map((name) => [name, this.state.values[name]]));
    return filter;
  }

  async load({ more = false } = {}) {
    const { values } = this.state;
    for (const name of FILTER) if (document.activeElement !== $('filter').elements[name]) $('filter').elements[name].value = values[name];
    this.request?.abort();
    const { signal } = (this.request = new AbortController());
    this.offset = more ? this.offset + PAGE : 0;
    try {
      const page = getJson(`/api/events${query({ ...this.wanted, sort: values.sort, limit: PAGE, offset: this.offset })}`, { signal });
      const shapes = more ? null : getJson(`/api/events.geojson${query(this.wanted)}`, { signal });
      this.show(await page, more);
      if (shapes) this.outline(await shapes);
    } catch (error) {
      if (!signal.aborted) $('event-count').textContent = `No events: ${error.message}.`;
    }
  }

  show({ matched, total, remark, events }, more) {
    this.matched = matched;
    const cards = events.map((event) => this.card(event));
    if (more) $('event-list').append(...cards);
    else $('event-list').replaceChildren(...cards);
    if (more) cards[0]?.querySelector('a').focus();
    $('more').hidden = this.offset + PAGE >= matched;
    $('event-count').textContent = remark ? `No events: ${remark}.` : `${matched} of ${total} events`;
    this.mark();
  }

  card(event) {
    const link = make('a', {
      href: this.state.hash({ event: event.id, tab: 'events' }), 'data-event': event.id,
      on: { click: (click) => { click.preventDefault(); this.state.set({ event: event.id, tab: 'events' }); } },
    },
    make('span', { class: 'card-title', text: `${shortDay(event.first_date)} to ${shortDay(event.last_date)}` }),
    make('span', { class: 'card-line', text: `${areaName(event.area_m2)}, highest score ${event.peak.toFixed(2)}` }),
    badge(event));
    return make('li', {}, link);
  }

  outline(shapes) {
    const places = shapes.features.map(({ id, bbox: [west, south, east, north] }) => ({
      type: 'Feature', id, properties: {}, geometry: { type: 'Point', coordinates: [(west + east) / 2, (south + north) / 2] },
    }));
    this.shapes = [shapes, { type: 'FeatureCollection', features: places }];
    for (const map of this.maps()) this.draw(map);
  }

  /** Put what is known on a map, such as one that was just opened. */
  draw(map) {
    if (this.shapes) {
      map.setData('events', this.shapes[0]);
      map.setData('places', this.shapes[1]);
    }
    map.setData('chosen', this.chosen ?? null);
  }

  async choose({ move = true } = {}) {
    const { event } = this.state.values;
    const detail = $('event-detail');
    this.chosen = null;
    detail.hidden = !event;
    if (event) {
      try {
        this.chosen = await getJson(`/api/events/${encodeURIComponent(event)}`);
      } catch (error) {
        detail.replaceChildren(make('p', { class: 'problem', role: 'alert', text: `This event cannot be shown: ${error.message}.` }), this.closer());
      }
    }
    for (const map of this.maps()) map.setData('chosen', this.chosen);
    this.mark();
    if (!this.chosen) return;
    this.describe(this.chosen);
    const { bbox: [west, south, east, north], properties } = this.chosen;
    const month = nearest(this.area.months, properties.first_date.slice(0, 7));
    if (month) this.state.set({ month });
    const [map] = this.maps();
    if (move) map.ready.then(() => map.map.fitBounds([[west, south], [east, north]], { padding: 90, maxZoom: this.area.native_zoom + 2 }));
  }

  describe({ properties: event, bbox: [west, south, east, north] }) {
    const between = (low, high) => (low === high ? '' : ` (${shortDay(low)} to ${shortDay(high)})`);
    const rows = [
      ['Began', shortDay(event.first_date) + between(event.first_low, event.first_high)],
      ['Ended', event.stage === 'finished' ? shortDay(event.last_date) + between(event.last_low, event.last_high) : `not before ${shortDay(event.last_low)}`],
      ['Duration', `${event.duration_days} days`],
      ['Area', areaName(event.area_m2)],
      ['Score', `highest ${event.peak.toFixed(2)}, mean ${event.mean.toFixed(2)}${event.spread === null ? '' : `, spread ${event.spread.toFixed(2)}`}`],
      ['Seen', `${event.windows} windows, ${event.n_obs} observations in the strongest`],
    ];
    const copy = make('button', { type: 'button', class: 'plain', text: 'Copy link' });
    copy.addEventListener('click', async () => {
      try {
        await navigator.clipboard.writeText(location.href);
        copy.textContent = 'Copied';
      } catch {
        copy.textContent = 'Copy the address of this page';
      }
    });
    const history = make('button', { type: 'button', class: 'plain', text: 'History of its middle' });
    history.addEventListener('click', () => {
      const [longitude, latitude] = inside(this.chosen.geometry, [(west + east) / 2, (south + north) / 2]);
      this.state.set({ pixel: `${longitude.toFixed(6)},${latitude.toFixed(6)}`, tab: 'pixel' });
    });
    $('event-detail').replaceChildren(
      make('h2', {}, `Event ${event.id}`), badge(event),
      make('dl', {}, ...rows.flatMap(([name, text]) => [make('dt', { text: name }), make('dd', { text })])),
      make('p', { class: 'quiet', text: 'In brackets: 90 % intervals.' }),
      make('div', { class: 'row' }, history, copy, this.closer()));
  }

  closer() {
    return make('button', { type: 'button', class: 'plain', text: 'Close', on: { click: () => {
      this.state.set({ event: '' });
      $('event-list').querySelector('a')?.focus();
    } } });
  }

  mark() {
    for (const link of $('event-list').querySelectorAll('a')) {
      if (link.dataset.event === this.state.values.event) link.setAttribute('aria-current', 'true');
      else link.removeAttribute('aria-current');
    }
  }
}

function badge({ confidence, stage }) {
  return make('span', { class: `badge ${confidence}`, text: `${stage}, ${confidence} confidence` });
}

/** The last month up to a wanted one, else the first. */
function nearest(months, wanted) {
  return months.findLast(({ label }) => label <= wanted)?.label ?? months[0]?.label;
}

/** A point of an outline's first ring if the middle of its box lies outside of it: an event may be a ring or an L. */
function inside(geometry, middle) {
  const rings = geometry.type === 'Polygon' ? [geometry.coordinates] : geometry.coordinates;
  const holds = (ring, [x, y]) => ring.reduce((odd, [ax, ay], k) => {
    const [bx, by] = ring[(k + 1) % ring.length];
    return ay > y !== by > y && x < ((bx - ax) * (y - ay)) / (by - ay) + ax ? !odd : odd;
  }, false);
  if (rings.some(([outer, ...holes]) => holds(outer, middle) && !holes.some((hole) => holds(hole, middle)))) return middle;
  const [a, b, c] = rings[0][0];
  return c ? [(a[0] + b[0] + c[0]) / 3, (a[1] + b[1] + c[1]) / 3] : a;
}
