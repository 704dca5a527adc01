// One map: an image, a layer of scores over it, outlines over both. Labels are HTML; no glyphs are ever needed.

import { colour } from './theme.js';

const maplibregl = window.maplibregl;
maplibregl.setWorkerUrl('/static/vendor/maplibre-gl-csp-worker.js');

const EMPTY = { type: 'FeatureCollection', features: [] };

export class AreaMap {
  constructor(container, area, { interactive = true, at = null, label = 'Map' } = {}) {
    const [west, south, east, north] = area.bounds;
    this.area = area;
    this.shown = { image: null, layer: null };
    this.waiting = { image: null, layer: null };
    this.count = 0;
    this.map = new maplibregl.Map({
      container,
      interactive,
      style: { version: 8, sources: {}, layers: [{ id: 'ground', type: 'background', paint: { 'background-color': colour('ground') } }] },
      attributionControl: false,
      dragRotate: false,
      pitchWithRotate: false,
      touchPitch: false,
      maxZoom: 20,
      ...(at ?? { bounds: [[west, south], [east, north]], fitBoundsOptions: { padding: 24 } }),
      locale: { 'Map.Title': label },
    });
    this.map.touchZoomRotate?.disableRotation();
    this.map.keyboard?.disableRotation();
    this.ready = new Promise((done) => this.map.once('load', done)).then(() => this.furnish());
    this.map.on('error', (event) => this.onproblem?.(event.error?.message ?? 'a part of the map cannot be shown'));
  }

  furnish() {
    const line = (id, source, paint) => this.map.addLayer({ id, type: 'line', source, paint, layout: { 'line-join': 'round' } });
    const ring = { type: 'Feature', properties: {}, geometry: { type: 'LineString', coordinates: this.area.outline } };
    this.map.addSource('outline', { type: 'geojson', data: ring });
    for (const name of ['events', 'places', 'chosen', 'pixel']) this.map.addSource(name, { type: 'geojson', data: EMPTY });
    line('outline', 'outline', { 'line-color': colour('rim'), 'line-width': 1 });
    line('events-halo', 'events', { 'line-color': '#000', 'line-opacity': 0.55, 'line-width': 3.6 });
    // High and low confidence differ in dashes too, not in colour alone.
    this.map.addLayer({
      id: 'events-high', type: 'line', source: 'events', filter: ['==', ['get', 'confidence'], 'high'],
      paint: { 'line-color': '#fff', 'line-width': 1.6 },
    });
    this.map.addLayer({
      id: 'events-low', type: 'line', source: 'events', filter: ['==', ['get', 'confidence'], 'low'],
      paint: { 'line-color': '#fff', 'line-width': 1.4, 'line-dasharray': [2, 2] },
    });
    this.map.addLayer({
      id: 'places', type: 'circle', source: 'places', maxzoom: this.area.native_zoom - 2,
      paint: { 'circle-radius': 4, 'circle-color': '#ffd27a', 'circle-stroke-color': '#222', 'circle-stroke-width': 1.2 },
    });
    line('chosen-halo', 'chosen', { 'line-color': '#000', 'line-opacity': 0.7, 'line-width': 6 });
    line('chosen', 'chosen', { 'line-color': '#4fd6e0', 'line-width': 3 });
    line('pixel-halo', 'pixel', { 'line-color': '#000', 'line-width': 5 });
    line('pixel', 'pixel', { 'line-color': '#fff', 'line-width': 2 });
  }

  recolour() {
    if (!this.map.getLayer('outline')) return;
    this.map.setPaintProperty('ground', 'background-color', colour('ground'));
    this.map.setPaintProperty('outline', 'line-color', colour('rim'));
  }

  setData(name, data) {
    return this.ready.then(() => this.map.getSource(name).setData(data ?? EMPTY));
  }

  setOutlines(visible) {
    return this.ready.then(() => {
      for (const id of ['events-halo', 'events-high', 'events-low', 'places']) {
        this.map.setLayoutProperty(id, 'visibility', visible ? 'visible' : 'none');
      }
    });
  }

  /**
   * Show tiles in a slot ("image" or "layer"), or nothing. Resolves once they are drawn. What was shown before stays until
   * then, so that a month does not blink on its way to the next.
   */
  async show(slot, tiles, opacity = 1) {
    await this.ready;
    if (this.waiting[slot]) this.remove(this.waiting[slot]);
    this.waiting[slot] = null;
    const current = this.shown[slot];
    if (current?.tiles === tiles) {
      if (current) this.map.setPaintProperty(current.id, 'raster-opacity', opacity);
      return;
    }
    if (tiles === null) {
      if (current) this.remove(current);
      this.shown[slot] = null;
      return;
    }
    const next = { id: `${slot}-${(this.count += 1)}`, tiles };
    this.waiting[slot] = next;
    this.map.addSource(next.id, {
      type: 'raster', tiles: [location.origin + tiles], tileSize: 256, bounds: this.area.bounds,
      minzoom: 0, maxzoom: Math.min(this.area.native_zoom + 1, 22),
    });
    const before = slot === 'image' ? (this.waiting.layer ?? this.shown.layer)?.id ?? 'outline' : 'outline';
    this.map.addLayer({
      id: next.id, type: 'raster', source: next.id,
      paint: { 'raster-opacity': 0, 'raster-resampling': 'nearest', 'raster-fade-duration': 0 },
    }, this.map.getLayer(before) ? before : 'outline');
    await this.loaded(next.id);
    if (this.waiting[slot] !== next) return;
    this.map.setPaintProperty(next.id, 'raster-opacity', opacity);
    if (this.shown[slot]) this.remove(this.shown[slot]);
    this.shown[slot] = next;
    this.waiting[slot] = null;
  }

  loaded(id) {
    return new Promise((done) => {
      const check = () => {
        if (this.map.getSource(id) && !this.map.isSourceLoaded(id)) return;
        this.map.off('sourcedata', check);
        this.map.off('idle', check);
        done();
      };
      this.map.on('sourcedata', check);
      this.map.on('idle', check);
    });
  }

  remove({ id }) {
    if (this.map.getLayer(id)) this.map.removeLayer(id);
    if (this.map.getSource(id)) this.map.removeSource(id);
  }

  /** "zoom/latitude/longitude" of what is shown. */
  get at() {
    const { lng, lat } = this.map.getCenter();
    return `${this.map.getZoom().toFixed(2)}/${lat.toFixed(5)}/${lng.toFixed(5)}`;
  }

  static parseAt(text) {
    const [zoom, latitude, longitude] = text.split('/').map(Number);
    const fits = [zoom, latitude, longitude].every(Number.isFinite) && Math.abs(latitude) <= 85 && Math.abs(longitude) <= 180;
    return fits ? { center: [longitude, latitude], zoom: Math.min(Math.max(zoom, 0), 20) } : null;
  }

  /** West, south, east and north of what is shown. */
  get box() {
    const bounds = this.map.getBounds();
    const clip = (value, most) => Math.min(Math.max(value, -most), most);
    return {
      west: clip(bounds.getWest(), 180), south: clip(bounds.getSouth(), 90),
      east: clip(bounds.getEast(), 180), north: clip(bounds.getNorth(), 90),
    };
  }

  /** A copy of what the map shows as a canvas. */
  picture() {
    return new Promise((done) => {
      this.map.once('render', () => {
        const shown = this.map.getCanvas();
        const copy = document.createElement('canvas');
        [copy.width, copy.height] = [shown.width, shown.height];
        copy.getContext('2d').drawImage(shown, 0, 0);
        done(copy);
      });
      this.map.triggerRepaint();
    });
  }
}

/** Make two maps move as one; only `leader` listens to the reader. */
export function follow(leader, follower) {
  const copy = () => follower.map.jumpTo({ center: leader.map.getCenter(), zoom: leader.map.getZoom() });
  leader.map.on('move', copy);
  copy();
  return () => leader.map.off('move', copy);
}
