// Before the first paint: the theme that was chosen, where one was.
(function () {
  try {
    var theme = localStorage.getItem("edgewright.theme");
    if (theme === "dark" || theme === "light") document.documentElement.dataset.theme = theme;
  } catch (error) {
    // Without storage the system's theme holds.
  }
})();
