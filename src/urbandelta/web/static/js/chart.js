// A pixel's history as an SVG of panels over one time axis. Colours are classes, so it follows light and dark.

import { draw, shortDay } from './dom.js';

const DAY_MS = 86_400_000;
const LEFT = 40;
const RIGHT = 10;
const GAP = 30;

/** Panels of a history: title, range, and what is drawn. */
function panelsOf(history) {
  const panels = [];
  const { score, streams, indices } = history;
  if (score) panels.push({ title: 'Score of each window, with its span', height: 120, range: [0, 1], ticks: [0, 0.5, 1], score });
  const radar = streams.filter(({ kind }) => kind === 'sar');
  const bands = [...new Set(radar.flatMap(({ values }) => Object.keys(values)))];
  for (const band of bands) {
    const series = radar.filter(({ values }) => values[band]).map((stream) => ({
      name: stream.title.replace('Radar, ', ''), times: stream.times,
      values: stream.values[band].map((value, k) => (stream.valid[k] ? value : null)),
    }));
    panels.push({ title: `Backscatter ${band}, dB`, height: 84, series });
  }
  for (const index of indices) panels.push({ title: index.title, height: 70, series: [{ name: index.name, ...index }] });
  if (streams.length) panels.push({ title: 'Acquisitions (faint: masked here)', height: 18 * streams.length, lanes: streams });
  return panels.map((panel) => ({ ...panel, range: panel.range ?? rangeOf(panel.series) }));
}

function rangeOf(series) {
  if (!series) return [0, 1];
  const values = series.flatMap((one) => one.values).filter((value) => value !== null).sort((a, b) => a - b);
  if (!values.length) return [0, 1];
  // A few speckles must not flatten everything else.
  const low = values[Math.floor(0.01 * (values.length - 1))];
  const high = values[Math.ceil(0.99 * (values.length - 1))];
  const room = 0.08 * (high - low || 1);
  return [low - room, high + room];
}

const time = (text) => Date.parse(text.length === 10 ? `${text}T00:00:00Z` : text);

/** Median with the neighbours: single looks of radar are too noisy to be read as a line. */
function running(values, width = 7) {
  if (values.length < width) return values;
  const half = width >> 1;
  return values.map((_, k) => {
    const near = values.slice(Math.max(k - half, 0), k + half + 1).sort((a, b) => a - b);
    return near[near.length >> 1];
  });
}

/** Draw a history `width` pixels wide; `month` ("2021-06") is marked. Returns the SVG and its time axis. */
export function drawChart(history, { width, month, label }) {
  const panels = panelsOf(history);
  const all = [
    ...(history.score ? [...history.score.start, ...history.score.end] : []),
    ...history.streams.flatMap(({ times }) => [times[0], times.at(-1)]),
  ].map(time);
  const [first, last] = all.length ? [Math.min(...all), Math.max(...all)] : [0, DAY_MS];
  const inner = width - LEFT - RIGHT;
  const x = (t) => LEFT + (inner * (t - first)) / Math.max(last - first, 1);
  const total = panels.reduce((sum, { height }) => sum + height + GAP, 22);
  const svg = draw('svg', { viewBox: `0 0 ${width} ${total}`, class: 'chart', role: 'img', 'aria-label': label });
  let top = 0;
  for (const panel of panels) {
    top += GAP - 8;
    svg.append(draw('text', { x: LEFT, y: top - 7, class: 'panel-title', text: panel.title }));
    svg.append(drawPanel(panel, { top, x, width }));
    top += panel.height + 8;
  }
  svg.append(...yearTicks(first, last, x, top));
  if (month) {
    const at = x(time(`${month}-15`));
    if (at >= LEFT && at <= width - RIGHT) svg.append(draw('line', { x1: at, x2: at, y1: 12, y2: top, class: 'now' }));
  }
  const cursor = draw('line', { x1: 0, x2: 0, y1: 12, y2: top, class: 'cursor', visibility: 'hidden' });
  svg.append(cursor);
  return { svg, cursor, x, monthAt: (px) => new Date(first + ((px - LEFT) / inner) * (last - first)).toISOString().slice(0, 7) };
}

function drawPanel(panel, { top, x, width }) {
  const [low, high] = panel.range;
  const y = (value) => top + panel.height * (1 - (Math.min(Math.max(value, low), high) - low) / (high - low || 1));
  const group = draw('g');
  if (panel.lanes) {
    panel.lanes.forEach((stream, lane) => {
      const base = top + 18 * lane;
      group.append(draw('text', { x: LEFT - 5, y: base + 11, class: 'tick-label end', text: lane === 0 || panel.lanes.length > 1 ? short(stream.name) : '' }));
      stream.times.forEach((moment, k) => {
        const at = x(time(moment)).toFixed(1);
        group.append(draw('line', { x1: at, x2: at, y1: base + 2, y2: base + 14, class: `stroke s${lane % 3}${stream.valid[k] ? '' : ' hidden-one'}` }));
      });
    });
    return group;
  }
  for (const tick of panel.ticks ?? [low + 0.15 * (high - low), high - 0.15 * (high - low)]) {
    group.append(draw('line', { x1: LEFT, x2: width - RIGHT, y1: y(tick), y2: y(tick), class: 'grid' }));
    const text = Number.isInteger(tick) || panel.ticks ? String(tick) : tick.toFixed(Math.abs(tick) >= 10 ? 0 : Math.abs(tick) >= 1 ? 1 : 2);
    group.append(draw('text', { x: LEFT - 5, y: y(tick) + 4, class: 'tick-label end', text: text.replace('-', '−') }));
  }
  if (panel.score) return drawScore(group, panel.score, x, y);
  panel.series.forEach((one, number) => {
    const known = one.values.map((value, k) => [x(time(one.times[k])), value]).filter(([, value]) => value !== null);
    for (const [at, value] of known) group.append(draw('circle', { cx: at.toFixed(1), cy: y(value).toFixed(1), r: 1.5, class: `dot s${number}` }));
    const smooth = running(known.map(([, value]) => value));
    const points = known.map(([at], k) => `${at.toFixed(1)},${y(smooth[k]).toFixed(1)}`).join(' ');
    group.append(draw('polyline', { points, class: `line s${number}` }));
    if (panel.series.length > 1) {
      const from = width - RIGHT - 78 * (panel.series.length - number);
      group.append(draw('line', { x1: from, x2: from + 12, y1: top - 11, y2: top - 11, class: `line s${number}` }));
      group.append(draw('text', { x: from + 15, y: top - 7, class: 'tick-label', text: one.name }));
    }
  });
  return group;
}

function drawScore(group, score, x, y) {
  const known = score.score.map((value, k) => ({ value, k })).filter(({ value }) => value !== null);
  for (const { value, k } of known) {
    group.append(draw('line', { x1: x(time(score.start[k])), x2: x(time(score.end[k])), y1: y(value), y2: y(value), class: 'span' }));
  }
  const points = known.map(({ value, k }) => `${x(time(score.middle[k])).toFixed(1)},${y(value).toFixed(1)}`).join(' ');
  group.append(draw('polyline', { points, class: 'line score' }));
  for (const { value, k } of known) {
    const kind = score.provisional[k] ? 'score provisional' : 'score';
    if (score.spread?.[k]) {
      const at = x(time(score.middle[k]));
      group.append(draw('line', { x1: at, x2: at, y1: y(value - score.spread[k]), y2: y(value + score.spread[k]), class: 'spread' }));
    }
    group.append(draw('circle', { cx: x(time(score.middle[k])), cy: y(value), r: 2.8, class: `dot ${kind}` }));
  }
  return group;
}

function yearTicks(first, last, x, top) {
  const [from, to] = [new Date(first).getUTCFullYear(), new Date(last).getUTCFullYear()];
  const step = Math.max(Math.ceil((40 * (to - from + 1)) / (x(last) - x(first))), 1);
  const ticks = [];
  for (let year = from; year <= to; year += step) {
    const at = Math.max(x(Date.UTC(year, 0, 1)), LEFT);
    ticks.push(draw('line', { x1: at, x2: at, y1: top, y2: top + 4, class: 'grid' }));
    ticks.push(draw('text', { x: at + 2, y: top + 14, class: 'tick-label', text: String(year) }));
  }
  return ticks;
}

const short = (name) => name.replace(/^.*_/, '').replace('optical', 'opt.').slice(0, 5);

/** What a history says in one sentence, for those who do not see the chart. */
export function summarise(history) {
  const score = history.score;
  const best = score?.score.reduce((top, value, k) => (value !== null && (top === -1 || value > score.score[top]) ? k : top), -1) ?? -1;
  const seen = history.streams.map(({ title, valid }) => `${title}: ${valid.filter(Boolean).length} of ${valid.length} acquisitions valid`);
  const peak = best >= 0
    ? `Highest score ${score.score[best].toFixed(2)}, window from ${shortDay(score.start[best])} to ${shortDay(score.end[best])}. `
    : 'No score here. ';
  return `${peak}${seen.join('; ')}.`;
}
