// The review page. All numbers and orders come from the server.
(() => {
  "use strict";
  const { one, whole, count, make, fill, tell, text, typing } = common;
  const ask = (what, body = {}) => common.ask(what, { cut: state.cut, by: one("by").value.trim(), ...body });
  const PAGE = 100, POLL = 3000;
  const WORDS = { drop: "dropped", flag: "flagged", keep: "kept", "not judged": "not judged", unscored: "not scored" };
  const SORTS = { score: "score", forgetting: "forgetting", p: "p-value", row: "place in the file" };
  const short = (n) => n === null || n === undefined ? "none" : String(Number(n.toPrecision(4)));
  const percent = (share) => (100 * share).toFixed(share && share < .001 ? 2 : 1) + " %";

  // ---- what is known ----
  const state = { about: null, cut: null, list: 0, total: 0, page: 0, items: [], at: -1, version: -1, detail: null, latest: 0, shown: false };

  // ---- the list ----
  const chosen = () => [...document.querySelectorAll("#show input:checked")].map((box) => box.value);
  let selecting = 0;
  async function select(keep) {
    const turn = ++selecting;
    const wanted = { count: PAGE, judged: one("judged").value, sort: one("sort").value || "score",
      descending: one("order").dataset.up !== "1", search: one("search").value };
    if (state.about) wanted.show = chosen();
    if (wanted.search) one("total").textContent = "Searching …";
    const found = await ask("select", wanted);
    if (turn !== selecting) return;  // asked for something else meanwhile
    Object.assign(state, { list: found.list, total: found.total });
    one("total").textContent = `${whole(found.total)} of ${whole(state.about?.rows ?? found.total)} rows`;
    await pageIs(0, found.rows, keep ? undefined : 0);
  }
  async function turnTo(page, at) {
    const found = await ask("page", { list: state.list, start: page * PAGE, count: PAGE }).catch((error) => {
      if (error.status === 410) return select(true).then(() => null);
      throw error;
    });
    if (found) await pageIs(page, found.rows, at);
  }
  async function pageIs(page, rows, at) {
    Object.assign(state, { page, items: rows, at: -1 });
    const pages = Math.max(1, Math.ceil(state.total / PAGE));
    one("pager").hidden = pages < 2;
    one("pages").textContent = whole(pages);
    one("number").value = page + 1; one("number").max = pages;
    one("before").disabled = page === 0; one("after").disabled = page + 1 >= pages;
    draw();
    if (!rows.length) show(null);
    else if (at !== undefined && (!narrow.matches || !one("detail").hidden)) await go(at < 0 ? rows.length - 1 : at);
  }
  function draw() {
    one("list").replaceChildren(...state.items.map((item, i) => make("li", {}, entry(item, i))));
    mark();
  }
  function entry(item, i) {
    const said = Object.entries(item.given).map(([who, verdict]) => `${who || "somebody"}: ${verdict}`).join(", ");
    return make("button", { type: "button", class: "item", "data-row": item.row, onclick: () => go(i).catch(tell) },
      make("span", { class: `mark ${item.outcome.replace(" ", "-")}` }, WORDS[item.outcome]),
      make("span", { class: "said" }, `row ${item.row}`, item.score === null ? "" : ` · score ${short(item.score)}`,
        item.p === null ? "" : ` · p ${short(item.p)}`, item.outcome === item.decision ? "" : ` · was ${WORDS[item.decision]}`),
      make("span", { class: "said" }, said),
      make("span", { class: "excerpt", dir: "auto" }, item.text));
  }
  function mark() {
    for (const [i, element] of [...document.querySelectorAll(".item")].entries()) element.setAttribute("aria-current", String(i === state.at));
  }
  async function go(at) {
    if (at < 0) { if (state.page > 0) await turnTo(state.page - 1, -1); return; }
    if (at >= state.items.length) { if ((state.page + 1) * PAGE < state.total) await turnTo(state.page + 1, 0); return; }
    state.at = at;
    mark();
    const element = document.querySelectorAll(".item")[at];
    const box = element.getBoundingClientRect();
    if (box.top < one("tools").getBoundingClientRect().bottom || box.bottom > innerHeight) element.scrollIntoView({ block: "nearest" });
    await show(state.items[at].row);
  }
  // New facts about rows that may be on this page.
  function take(items) {
    for (const item of items) {
      const i = state.items.findIndex((other) => other.row === item.row);
      if (i < 0) continue;
      state.items[i] = item;
      const old = document.querySelectorAll(".item")[i], fresh = entry(item, i), focused = document.activeElement === old;
      old.replaceWith(fresh);
      if (focused) fresh.focus();
      if (state.detail?.row === item.row) { Object.assign(state.detail, item); drawVerbs(); }
    }
    mark();
  }

  // ---- one row ----
  const narrow = matchMedia("(max-width: 56rem)");
  async function show(row, wholeText = false) {
    const turn = ++state.latest;
    state.shown = false;
    if (row === null) { state.detail = null; one("detail").hidden = true; return; }
    const found = await ask("row", { row, whole: wholeText });
    if (turn !== state.latest) return;
    state.detail = found;
    drawDetail(found);
    state.shown = true;
  }
  const facts = (pairs) => make("dl", { class: "facts" }, ...pairs.map(([name, value]) =>
    make("div", {}, make("dt", {}, name), make("dd", {}, typeof value === "number" ? short(value) : value ?? "none"))));
  function drawDetail(d) {
    const numbers = Object.entries(d.numbers).filter(([, value]) => value !== null).map(([name, value]) => [SORTS[name], value]);
    const remembered = Object.entries(d.remembered).map(([name, value]) => [`remembered, ${name}`, value]);
    fill(one("detail"),
      make("header", {}, make("button", { type: "button", class: "close", onclick: () => show(null) }, "‹ Rows"),
        make("span", { id: "becomes" }), make("b", {}, `row ${d.row}`), make("span", { class: "id soft" }, d.id)),
      make("div", { class: "verbs", id: "verbs" }),
      d.reason ? make("p", {}, d.reason) : null,
      d.p_words ? make("p", { class: "soft" }, d.p_words) : null,
      d.readable ? null : make("p", { class: "soft" }, "Shown as it stands in its file: it cannot be read as a conversation, or was changed since it was scored."),
      ...d.turns.flatMap((turn) => [
        make("p", { class: "who" }, turn.role + (turn.learned ? " · learned" : ""), turn.heat ? " · what the review made the model forget " : "", turn.heat ? ramp() : null),
        text(turn.segments),
        turn.left ? make("button", { type: "button", onclick: () => show(d.row, true).catch(tell) }, `Show ${whole(turn.left)} more characters`) : null,
      ]),
      facts([...numbers, ...remembered]),
      ...answers(d), ...evidence(d), ...twins(d));
    one("detail").hidden = false;
    one("detail").scrollTop = 0;
    if (narrow.matches) one("detail").focus();
    drawVerbs();
  }
  const ramp = () => make("span", { class: "ramp", title: "little to much" }, ...[1, 2, 3, 4, 5, 6, 7, 8].map((n) => make("span", { class: `h${n}` })));
  function answers(d) {
    const given = Object.entries(d.answers);
    return given.length ? [make("h2", {}, "What the model answered"), make("div", { class: "sides" },
      ...given.map(([name, segments]) => make("div", {}, make("p", { class: "who" }, name), text(segments))))] : [];
  }
  function evidence(d) {
    return d.evidence.length ? [make("h2", {}, "Clean rows it was compared with"),
      ...d.evidence.flatMap((e) => [text(e.segments), facts(Object.entries(e.facts))])] : [];
  }
  function twins(d) {
    const list = (rows, words) => rows.length ? [make("h2", {}, words), make("p", {}, ...rows.flatMap((row) =>
      [make("button", { type: "button", onclick: () => show(row).catch(tell) }, `row ${row}`), " "]))] : [];
    const found = [...list(d.twins.kept, "Nearly the same, but not dropped by the run"), ...list(d.twins.dropped, "Nearly the same as rows the run dropped")];
    if (d.twins.more) found.push(make("p", { class: "soft small" }, `and ${whole(d.twins.more)} more`));
    if (d.twins.share < 1) found.push(make("p", { class: "soft small" }, `Still looking for near-duplicates (${Math.floor(100 * d.twins.share)} %)`));
    return found;
  }
  const mine = (item) => item.given[one("by").value.trim()] ?? null;
  function drawVerbs() {
    const d = state.detail;
    if (!d || !one("verbs")) return;
    one("becomes").className = `mark ${d.outcome.replace(" ", "-")}`;
    one("becomes").textContent = WORDS[d.outcome];
    const others = Object.entries(d.given).filter(([who]) => who !== one("by").value.trim());
    const verb = (verdict, words, key) => make("button", { type: "button", "data-verdict": verdict, "aria-pressed": String(mine(d) === verdict), onclick: () => judge(verdict) }, words, " ", make("kbd", {}, key));
    fill(one("verbs"), verb("clean", "Keep", "c"), verb("unsafe", "Drop", "u"), verb("unsure", "Unsure", "s"),
      make("button", { type: "button", onclick: undo }, "Undo ", make("kbd", {}, "z")),
      others.length ? make("span", { class: "said" }, others.map(([who, v]) => `${who || "somebody"}: ${v}`).join(", ")) : null);
  }

  // ---- decisions: in the order of the keys, each on disk before the next is sent ----
  let queue = Promise.resolve();
  const then = (work) => { queue = queue.then(work).catch(tell); return queue; };
  function judge(verdict, stay) {
    const d = state.detail;
    if (!d || !state.shown) return;  // nobody judges a row before it is on screen
    const row = d.row, at = state.items.findIndex((item) => item.row === row);
    then(async () => {
      const known = state.items.find((item) => item.row === row) ?? d;
      try {
        const said = await ask("decide", { row, verdict, expects: mine(known) });
        tell(null);
        Object.assign(known, said.rows[0]);
        take(said.rows); news(said); own(said);
        if (state.detail?.row === row) { Object.assign(state.detail, said.rows[0]); drawVerbs(); }
      } catch (error) {
        if (error.said?.rows) { take(error.said.rows); if (state.detail?.row === row) { Object.assign(state.detail, error.said.rows[0]); drawVerbs(); } }
        throw error;
      }
    });
    if (!stay && at >= 0) go(at + 1).catch(tell);
  }
  // Others wrote meanwhile where the version grew by more than this one change: the next poll then takes it in.
  function own(said) { if (said.version === state.version + 1) state.version = said.version; }
  const undo = () => then(async () => {
    const said = await ask("undo");
    tell(said.rows.length ? null : new Error("Nothing of yours to undo."));
    take(said.rows); news(said); own(said);
    if (!said.rows.length) return;
    const at = state.items.findIndex((item) => item.row === said.rows[0].row);
    if (at >= 0) await go(at); else await show(said.rows[0].row);
  });

  // ---- the cut ----
  const plot = one("plot");
  const SVG = "http://www.w3.org/2000/svg";
  function part(tag, attributes) {
    const element = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  }
  function drawPlot() {
    const h = state.about.histogram;
    if (!h) return;
    const peak = Math.sqrt(Math.max(...h.counts, 1)), width = 600 / h.counts.length, span = h.high - h.low;
    const place = (value) => 600 * Math.min(1, Math.max(0, (value - h.low) / span));
    const cut = state.cut ?? h.cut;
    plot.replaceChildren(...h.counts.map((count, i) => {
      const height = 86 * Math.sqrt(count) / peak, middle = h.low + span * (i + .5) / h.counts.length;
      return part("rect", { x: i * width + .5, y: 90 - height, width: width - 1, height, class: cut !== null && middle > cut ? "above" : "below" });
    }));
    if (h.cut !== null && state.cut !== null) plot.append(part("line", { x1: place(h.cut), x2: place(h.cut), y1: 0, y2: 90, class: "made" }));
    if (cut !== null) plot.append(part("line", { x1: place(cut), x2: place(cut), y1: 0, y2: 90, class: "line" }));
  }
  function news(said) {
    const c = said.counts, moved = state.cut !== null;
    one("counts").textContent = `${moved ? `At ${short(state.cut)}` : "As the run cut"}, with ${count(said.progress.judged, "row")} judged: ` +
      Object.entries(c).filter(([name, n]) => n || ["drop", "flag", "keep"].includes(name)).map(([name, n]) => `${whole(n)} ${WORDS[name]}`).join(", ");
    const s = said.sure, sentences = [];
    if (!moved && state.about.estimated) sentences.push(`Estimated by the run: ${state.about.estimated}.`);
    if (s.clean_share >= 1) sentences.push("The p-values do not set the rows above the cut apart from clean ones.");
    else if (s.clean_share !== null) sentences.push(`By the p-values, at most about ${percent(s.clean_share)} of the rows above the cut are expected to be clean.`);
    if (s.judged) sentences.push(`Judged of those above it: ${count(s.judged, "row")}, ${whole(s.unsafe)} unsafe (${percent(s.precision.value)}, ${percent(s.precision.low)} to ${percent(s.precision.high)} if they had been drawn at random).`);
    else sentences.push("None of the rows above it has been judged yet.");
    if (said.twins.rows) sentences.push(`Not dropped by the run but nearly the same as a dropped one: ${count(said.twins.rows, "row")}.`);
    one("sure").textContent = sentences.join(" ");
    one("command").textContent = `forgetfilter apply ${quoted(state.about.folder)}${moved ? ` --cut ${state.cut}` : ""}`;
    one("back").disabled = !moved;
  }
  const quoted = (name) => /^[\w@%+=:,./-]+$/.test(name) ? name : `'${name.replaceAll("'", "'\\''")}'`;
  let moving = false, moveAgain = false;
  async function moved() {
    drawPlot();
    if (moving) { moveAgain = true; return; }
    moving = true;
    try {
      do { moveAgain = false; news(await ask("state")); } while (moveAgain);
    } finally { moving = false; }
    clearTimeout(moved.timer);
    moved.timer = setTimeout(() => select(true).catch(tell), 350);
  }
  function cutTo(value, from) {
    state.cut = value;
    const h = state.about.histogram, shown = value ?? h.cut ?? h.high;
    if (from !== "slide") one("slide").value = Math.round(1000 * (shown - h.low) / (h.high - h.low));
    if (from !== "number") one("cut").value = value === null && h.cut === null ? "" : value === null ? short(shown) : shown;
    moved().catch(tell);
  }

  // ---- keys and controls ----
  const actions = {
    j: () => go(state.at + 1), ArrowDown: () => go(state.at + 1), k: () => go(state.at - 1), ArrowUp: () => go(state.at - 1),
    c: () => judge("clean"), u: () => judge("unsafe"), d: () => judge("unsafe"), s: () => judge("unsure"), x: () => judge(null, true),
    z: undo, n: next, "/": () => one("search").focus(), "?": () => one("help").click(), Escape: () => { if (narrow.matches) show(null); },
  };
  function next() {
    const at = state.items.findIndex((item, i) => i > state.at && mine(item) === null);
    return at >= 0 ? go(at) : go(state.items.length);
  }
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (typing(event.target)) { if (event.key === "Escape") event.target.blur(); return; }
    if (event.target.type === "range" && event.key.startsWith("Arrow")) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key, action = actions[key];
    if (!action || (event.repeat && "cudsxz".includes(key))) return;
    event.preventDefault();
    Promise.resolve(action()).catch(tell);
  });
  one("blur").addEventListener("change", () => document.body.classList.toggle("blurred", one("blur").checked));
  one("by").addEventListener("change", () => { try { localStorage.setItem("forgetfilter-by", JSON.stringify([state.about.by, one("by").value.trim()])); } catch { /* no storage here */ } drawVerbs(); });
  let waiting = 0;
  one("search").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(() => select().catch(tell), 250); });
  for (const id of ["judged", "sort"]) one(id).addEventListener("change", () => select().catch(tell));
  one("order").addEventListener("click", () => {
    const up = one("order").dataset.up === "1";
    one("order").dataset.up = up ? "0" : "1";
    one("order").textContent = up ? "↓ largest first" : "↑ smallest first";
    select().catch(tell);
  });
  one("before").addEventListener("click", () => turnTo(state.page - 1, 0).catch(tell));
  one("after").addEventListener("click", () => turnTo(state.page + 1, 0).catch(tell));
  one("number").addEventListener("change", () => {
    const page = Math.min(Math.max(1, Math.round(one("number").valueAsNumber || 1)), Math.ceil(state.total / PAGE));
    turnTo(page - 1, 0).catch(tell);
  });
  one("slide").addEventListener("input", () => {
    const h = state.about.histogram;
    cutTo(Number((h.low + (h.high - h.low) * one("slide").valueAsNumber / 1000).toPrecision(6)), "slide");
  });
  one("cut").addEventListener("input", () => { if (Number.isFinite(one("cut").valueAsNumber)) cutTo(one("cut").valueAsNumber, "number"); });
  one("back").addEventListener("click", () => cutTo(null));

  // Others decide too.
  async function poll() {
    try {
      const said = await ask("state");
      if (said.version !== state.version && state.items.length) {
        const fresh = await ask("items", { rows: state.items.map((item) => item.row) });
        take(fresh.rows);
      }
      state.version = said.version;
      news(said);
      if (one("trouble").dataset.gone) { delete one("trouble").dataset.gone; tell(null); }
    } catch (error) { one("trouble").dataset.gone = "1"; tell(error); }
    setTimeout(poll, POLL);
  }

  async function begin() {
    const rows = select();  // not to wait for one reply before the other is asked for
    const about = await ask("about").catch((error) => rows.catch(() => {}).then(() => { throw error; }));
    state.about = about;
    let by = about.by;
    try {  // a name typed here holds until the command is started under another one
      const [started, typed] = JSON.parse(localStorage.getItem("forgetfilter-by")) ?? [];
      if (started === by) by = typed;
    } catch { /* no storage here, or something else in it */ }
    one("by").value = by;
    one("source").textContent = `${about.source}: ${whole(about.rows)} rows`;
    document.title = `${about.source} · review`;
    one("verdict").textContent = about.verdict;
    one("show").append(...Object.entries(WORDS).filter(([name]) => about.counts[name] || ["drop", "flag", "keep"].includes(name)).map(([name, words]) =>
      make("label", {}, make("input", { type: "checkbox", value: name, checked: "", onchange: () => select().catch(tell) }), words)));
    one("sort").append(...Object.entries(SORTS).filter(([name]) => name !== "p" || about.with_p).map(([name, words]) => make("option", { value: name }, words)));
    one("cutting").hidden = !about.histogram;
    if (about.histogram) { one("slide").value = Math.round(1000 * ((about.histogram.cut ?? about.histogram.high) - about.histogram.low) / (about.histogram.high - about.histogram.low)); one("cut").value = about.histogram.cut === null ? "" : short(about.histogram.cut); drawPlot(); }
    await rows;
    drawVerbs();  // the first row came before it was known who looks
    const now = await ask("state");
    state.version = now.version;
    news(now);
    setTimeout(poll, POLL);
  }
  begin().catch((error) => { one("source").textContent = "The run cannot be shown"; tell(error); });
})();
