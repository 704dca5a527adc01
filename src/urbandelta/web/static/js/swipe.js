// Two maps, one over the other, cut at a divider.

import { $ } from './dom.js';
import { AreaMap, follow } from './map.js';

export class Swipe {
  constructor(state, left, area) {
    Object.assign(this, { state, left, area, right: null });
    const cut = $('cut');
    cut.addEventListener('input', () => state.set({ cut: Number(cut.value) }));
    state.on(['cut', 'swipe'], () => this.place());
    this.drag();
  }

  /** The right map, made when it is first needed. */
  open() {
    if (!this.right) {
      $('map-right').hidden = false;
      this.right = new AreaMap($('map-right'), this.area, {
        interactive: false, at: AreaMap.parseAt(this.left.at), label: 'Map right of the divider',
      });
      follow(this.left, this.right);
    }
    return this.right;
  }

  place() {
    const { swipe, cut } = this.state.values;
    $('divider').hidden = !swipe;
    $('map-right').hidden = !swipe;
    $('stage').classList.toggle('split', swipe);
    $('stage').style.setProperty('--cut', `${cut}%`);
    $('cut').value = cut;
    $('cut').setAttribute('aria-valuetext', `${Math.round(cut)} % from the left`);
    this.right?.map.resize();
  }

  /** The line itself can be dragged; the range beneath it is for keyboards and screen readers. */
  drag() {
    const line = $('divider').querySelector('.line');
    line.addEventListener('pointerdown', (event) => {
      line.setPointerCapture(event.pointerId);
      event.preventDefault();
    });
    line.addEventListener('pointermove', (event) => {
      if (!line.hasPointerCapture(event.pointerId)) return;
      const box = $('stage').getBoundingClientRect();
      this.state.set({ cut: Math.round(Math.min(Math.max(100 * (event.clientX - box.left) / box.width, 0), 100)) });
    });
  }
}
