"use strict";
// Follows the load: on our own page, and in Locust's as a line above it and a tab.

(() => {
  const TAB = "Second by second", COLUMNS_AGAIN = 61;
  const element = ServestormCharts.element;
  const own = document.getElementById("servestorm-page");
  let load = {load: 0, phase: "waiting"};

  // Locust's page: a line above everything, and the charts below where our tab is the selected one.
  let banner = null, panel = own;
  if (!own) {
    banner = element("div", "servestorm servestorm-banner");
    panel = element("section", "servestorm servestorm-tab");
    panel.hidden = true;
    document.body.prepend(banner);
  }
  const charts = new ServestormCharts(panel);

  // Locust stores a person's choice under this name; without one the browser's preference holds.
  function theme() {
    const chosen = localStorage.theme;
    const dark = chosen === "dark" || (!chosen && matchMedia("(prefers-color-scheme: dark)").matches);
    for (const each of document.querySelectorAll(".servestorm, .servestorm-body")) each.dataset.theme = dark ? "dark" : "light";
  }

  function select() {
    theme();
    if (own) return;
    const selected = document.querySelector('[role="tab"][aria-selected="true"]');
    panel.hidden = !selected || selected.textContent.trim() !== TAB;
    // Locust shows an empty tab for ours; its box is the place of the charts, and goes when a new load is prepared.
    const box = selected && selected.closest(".MuiContainer-root") || document.body;
    if (!panel.hidden && panel.parentNode !== box) box.append(panel);
  }

  function announce() {
    if (!banner) return;
    const state = ServestormCharts.state(load), link = element("a", "", "The load, second by second");
    link.href = "./servestorm";
    const words = [...state.reasons, state.sentence].filter(Boolean).join("; ");
    banner.replaceChildren(element("span", `badge ${state.kind}`, state.badge), element("span", "", words), link);
  }

  function take(news) {
    const fresh = news.load !== load.load || !load.seconds || !news.seconds;
    if (!fresh) {
      for (const [name, column] of Object.entries(load.seconds)) {
        news.seconds[name] = column.slice(0, news.begin).concat(news.seconds[name]);
      }
      news.planned = news.planned || load.planned;
    }
    load = news;
    charts.show(load);
    announce();
  }

  async function follow() {
    let pause_ms = 2000;
    try {
      const known = load.seconds ? load.seconds.sent.length : 0, before = load.phase;
      const begin = Math.max(0, known - COLUMNS_AGAIN);
      let answer = await fetch(`./servestorm/seconds?begin=${begin}&load=${load.load}`, {cache: "no-store"});
      let news = await answer.json();
      if (news.phase === "ended" && before !== "ended" && begin) {
        // The samples say what was offered and in flight, where the schedule did until now.
        answer = await fetch("./servestorm/seconds", {cache: "no-store"});
        news = await answer.json();
      }
      take(news);
      if (news.phase === "running" || news.phase === "warm-up") pause_ms = 1000;
    } catch {
      charts.settings.textContent = "Locust does not answer: it has ended, or you are not logged in.";
    }
    setTimeout(follow, pause_ms);
  }

  select();
  setInterval(select, 250);
  follow();
})();
