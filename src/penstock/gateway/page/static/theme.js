// Runs before the first paint, so that nothing flashes in the wrong colours.
"use strict";
try {
  const theme = localStorage.getItem("penstock.theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch { /* storage is off: the system decides */ }
