// The page of `vet`: one row, one key. What is asked next and what is said of it comes from the server.
(() => {
  "use strict";
  const { one, whole, count, make, fill, ask, tell, text, typing } = common;
  let now = null, busy = true;  // nothing is judged before its row is on screen

  async function to(what, body) {
    if (busy) return;
    busy = true;
    try {
      draw(await ask(what, body));
      tell(null);
    } catch (error) {
      if (error.said?.now) draw(error.said.now);
      tell(error);
    } finally { busy = false; }
  }

  function draw(said) {
    const moved = !now || said.row !== now.row;
    now = said;
    one("source").textContent = `${said.source}: ${count(said.rows, "row")}`;
    one("progress").max = said.wanted; one("progress").value = said.judged;
    one("counts").textContent = `${whole(said.judged)} of ${whole(said.wanted)} judged · ${said.so_far}`;
    one("pays").textContent = said.pays;
    if (moved) { one("note").value = ""; one("noting").hidden = true; }
    if (said.row === null) {
      verbs(key("back", "Back", "b"), said.read === null && said.judged < said.rows ? key("more", "Ten more", "m") : null, key("quit", "Quit", "q"));
      fill(one("turns"), ...(said.read === null ? finished(said) : waiting(said)));
      return;
    }
    const long = said.turns.some((turn) => turn.left);
    verbs(key("clean", "Clean", "c"), key("unsafe", "Unsafe", "u"), key("unsure", "Unsure", "s"), key("back", "Back", "b"), key("note", "Note", "n"),
      long ? key("more", "More", "m") : null, key("quit", "Quit", "q"));
    fill(one("turns"), make("p", { class: "small soft" }, make("b", { id: "row" }, `row ${said.row}`), ` · ${said.drawn}`),
      ...said.turns.flatMap((turn) => [make("p", { class: "who" }, turn.role), text(turn.head),
        ...(turn.left ? [make("button", { type: "button", onclick: () => keys.m() }, `${whole(turn.left)} more characters`), text(turn.tail)] : [])]));
    if (moved) { one("turns").scrollTop = 0; scrollTo(0, 0); }
  }
  const waiting = (said) => [make("p", {}, `The model still reads your rows; the proposals need them: ${whole(said.read)} of ${whole(said.rows)} read.`)];
  const finished = (said) => [make("p", { id: "done" }, said.judged < said.rows ? "Done." : "Every row has a verdict.", ` The verdicts are in ${said.file}.`),
    make("p", {}, "Quit, and the command says how to use them.")];
  const key = (name, words, letter) => make("button", { type: "button", "data-key": name, onclick: () => keys[letter]() }, words, " ", make("kbd", {}, letter));
  const verbs = (...buttons) => fill(one("verbs"), ...buttons);

  const judge = (verdict) => now?.row === null ? null : to("judge", { row: now.row, verdict, note: one("note").value });
  async function quit() {
    if (busy) return;
    busy = true;  // and stays so: nothing is asked any more
    try {
      await ask("quit");
      verbs();
      fill(one("turns"), make("p", { id: "over" }, "Stopped. Your verdicts are on disk; the same command goes on where you stopped."));
    } catch (error) { busy = false; tell(error); }
  }
  const keys = {
    c: () => judge("clean"), u: () => judge("unsafe"), s: () => judge("unsure"), b: () => to("back"), q: quit,
    m: () => now.row !== null ? to("now", { whole: true }) : now.read === null ? to("more") : null,
    n: () => { if (now.row !== null) { one("noting").hidden = false; one("note").focus(); } },
  };
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (typing(event.target)) {
      if (event.key === "Escape") event.target.value = "";
      if (event.key === "Escape" || event.key === "Enter") { event.target.blur(); one("noting").hidden = !event.target.value; }
      return;
    }
    const action = keys[event.key.toLowerCase()];
    if (!action || event.repeat || busy) return;
    event.preventDefault();
    action();
  });

  async function begin() {
    busy = false;
    await to("now");
    setInterval(() => { if (now && now.row === null && now.read !== null) to("now"); }, 1000);
  }
  begin();
})();
