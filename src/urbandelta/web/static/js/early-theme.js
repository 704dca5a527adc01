// Runs before the page is drawn, so that a dark page never flashes white.
try {
  const chosen = localStorage.getItem('urbandelta-theme');
  if (chosen === 'dark' || chosen === 'light') document.documentElement.dataset.theme = chosen;
} catch { /* without storage, the system's setting counts */ }
