// Tabs, as the ARIA practices describe them: one is in the tab order, arrows go to the others.

import { $ } from './dom.js';

const NAMES = ['view', 'events', 'pixel', 'files', 'about'];

export function startTabs(state) {
  const show = () => {
    const chosen = NAMES.includes(state.values.tab) ? state.values.tab : 'view';
    for (const name of NAMES) {
      const on = name === chosen;
      $(`tab-${name}`).setAttribute('aria-selected', String(on));
      $(`tab-${name}`).tabIndex = on ? 0 : -1;
      $(`pane-${name}`).hidden = !on;
    }
  };
  for (const [index, name] of NAMES.entries()) {
    const tab = $(`tab-${name}`);
    tab.addEventListener('click', () => state.set({ tab: name }));
    tab.addEventListener('keydown', (event) => {
      const to = { ArrowRight: index + 1, ArrowLeft: index - 1, Home: 0, End: NAMES.length - 1 }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      const next = NAMES[(to + NAMES.length) % NAMES.length];
      state.set({ tab: next });
      $(`tab-${next}`).focus();
    });
  }
  state.on(['tab'], show);
  show();
}
