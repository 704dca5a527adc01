// The month slider and its player.

import { $, make, monthName, shortDay } from './dom.js';

const STEP_MS = 900;

export class Timeline {
  /** `shown` gives a promise that is kept when the month that was set is on the map. */
  constructor(state, area, shown) {
    Object.assign(this, { state, months: area.months, shown, playing: false });
    const slider = $('month');
    slider.max = Math.max(this.months.length - 1, 0);
    for (const id of ['month', 'play', 'back', 'forward']) $(id).disabled = this.months.length < 2;
    slider.addEventListener('input', () => this.go(Number(slider.value)));
    $('back').addEventListener('click', () => this.go(this.index - 1));
    $('forward').addEventListener('click', () => this.go(this.index + 1));
    $('play').addEventListener('click', () => (this.playing ? this.stop() : this.play()));
    state.on(['month'], () => this.draw());
    this.drawYears();
    this.draw();
  }

  get index() {
    return Math.max(this.months.findIndex(({ label }) => label === this.state.values.month), 0);
  }

  go(index) {
    const month = this.months[(index + this.months.length) % this.months.length];
    if (month) this.state.set({ month: month.label });
  }

  async play() {
    this.playing = true;
    this.draw();
    const run = (this.run = Symbol('run'));
    while (this.playing && this.run === run) {
      this.go(this.index + 1);
      // A slow machine shows each month late rather than none of them.
      await Promise.all([this.shown(), new Promise((done) => setTimeout(done, STEP_MS))]);
    }
  }

  stop() {
    this.playing = false;
    this.draw();
  }

  draw() {
    const month = this.months[this.index];
    const play = $('play');
    play.textContent = this.playing ? 'Pause' : 'Play';
    play.setAttribute('aria-pressed', String(this.playing));
    if (!month) {
      $('month-name').textContent = 'No scores yet';
      return;
    }
    const slider = $('month');
    slider.value = this.index;
    slider.setAttribute('aria-valuetext', monthName(month.label));
    $('month-name').textContent = monthName(month.label);
    const span = month.start ? `seen from ${shortDay(month.start)} to ${shortDay(month.end)}` : '';
    $('month-note').textContent = [span, month.provisional ? 'provisional' : ''].filter(Boolean).join(' · ');
  }

  drawYears() {
    const most = Math.max(this.months.length - 1, 1);
    const ticks = this.months.flatMap(({ label }, index) => {
      const year = label.slice(0, 4);
      if (index > 0 && this.months[index - 1].label.slice(0, 4) === year) return [];
      const tick = make('span', { text: year });
      tick.style.setProperty('--at', index / most);
      return [{ tick, index }];
    });
    // Years that begin too close to each other would overlap.
    let last = -Infinity;
    $('years').replaceChildren(...ticks.filter(({ index }) => {
      const room = (index - last) / most > 0.09;
      if (room) last = index;
      return room;
    }).map(({ tick }) => tick));
  }
}
