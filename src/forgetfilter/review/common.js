// What the pages share: row text that only ever becomes text nodes, the server, keys.
const common = (() => {
  "use strict";
  const one = (id) => document.getElementById(id);
  const whole = (n) => n.toLocaleString("en-US");
  const count = (n, word) => `${whole(n)} ${word}${n === 1 ? "" : "s"}`;

  function make(tag, options = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(options)) {
      if (name === "class") element.className = value;
      else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (value !== null && value !== undefined) element.setAttribute(name, value);
    }
    return fill(element, ...children);
  }
  function fill(element, ...children) {
    element.replaceChildren(...children.filter((child) => child !== null && child !== undefined));
    return element;
  }

  // ---- the server ----
  let token = decodeURIComponent(location.hash.slice(1));
  try {
    if (token) sessionStorage.setItem("forgetfilter-token", token);
    else token = sessionStorage.getItem("forgetfilter-token") || "";
  } catch { /* no storage here */ }
  if (location.hash) history.replaceState(null, "", location.pathname);  // not to be shown on a shared screen

  async function ask(what, body = {}) {
    let reply;
    try {
      reply = await fetch(`api/${what}`, {
        method: "POST", headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
        body: JSON.stringify(body),
      });
    } catch {
      throw Object.assign(new Error("The server is gone. Start the command again and open the address it prints; what you decided so far is on disk."), { status: 0 });
    }
    const said = await reply.json().catch(() => ({ error: `The server failed (${reply.status}).` }));
    if (!reply.ok) throw Object.assign(new Error(said.error || `The server failed (${reply.status}).`), { status: reply.status, said });
    return said;
  }
  function tell(error) {
    one("trouble").hidden = !error;
    one("trouble").textContent = error ? error.message || String(error) : "";
  }

  const pieces = (segments) => segments.map(([text, code, heat, nats]) =>
    code || heat || nats !== null ? make("span", { class: `${code ? "code" : ""} ${heat ? `h${heat}` : ""}`.trim() || null, title: nats === null ? null : `${nats.toFixed(2)} nats` }, text) : text);
  const text = (segments) => make("div", { class: "text", dir: "auto" }, ...pieces(segments));

  const typing = (target) => /^(TEXTAREA|SELECT)$/.test(target.tagName) || (target.tagName === "INPUT" && !/^(checkbox|range)$/.test(target.type));

  one("help").addEventListener("click", () => { one("keys").hidden = !one("keys").hidden; one("help").setAttribute("aria-expanded", String(!one("keys").hidden)); });
  return { one, whole, count, make, fill, ask, tell, text, typing };
})();
