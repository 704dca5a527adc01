// Light and dark: the system's setting, until the reader chooses.

import { $ } from './dom.js';

const system = matchMedia('(prefers-color-scheme: dark)');

export const isDark = () => (document.documentElement.dataset.theme ?? (system.matches ? 'dark' : 'light')) === 'dark';

/** Wire the button; `changed` is called whenever colours do. */
export function startTheme(changed) {
  const button = $('theme');
  const show = () => {
    button.setAttribute('aria-pressed', String(isDark()));
    button.textContent = isDark() ? '☾' : '☀';
    changed();
  };
  button.addEventListener('click', () => {
    const next = isDark() ? 'light' : 'dark';
    document.documentElement.dataset.theme = next;
    try {
      localStorage.setItem('urbandelta-theme', next);
    } catch { /* the choice then lasts as long as the page */ }
    show();
  });
  system.addEventListener('change', show);
  show();
}

/** Value of one of the style sheet's colours. */
export const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
