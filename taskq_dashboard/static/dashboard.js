// Updates pages, shows confirmations in dialogs, and copies texts. Without this script, pages work but are not updated.
"use strict";
(() => {
  const main = document.getElementById("main");

  // --- live updates ------------------------------------------------------------------------------------------------

  const live = document.getElementById("live");
  const notice = document.getElementById("live-notice");
  const button = document.getElementById("live-switch");
  const isLive = document.body.hasAttribute("data-live");
  const RETRY_MS = 2000;
  const RETRY_MAX_MS = 60000;
  const LATE_MS = 5000;
  const COPIED_MS = 1500;
  let source = null;
  let isPaused = false;
  let waiting = null; // new contents that arrived while the user was busy
  let pause = RETRY_MS;
  let timer = null;
  let late = null;

  const say = text => {
    if (notice.textContent !== text) notice.textContent = text;
  };

  // Do not update the page while the user edits a field, has selected rows or text, or a dialog is open.
  const isBusy = () => {
    const active = document.activeElement;
    if (active && main.contains(active) && active.matches("input:not([type=checkbox]), select, textarea")) return true;
    if (main.querySelector("input[type=checkbox]:checked")) return true;
    if (document.querySelector("dialog[open]")) return true;
    const selection = document.getSelection();
    return Boolean(selection && !selection.isCollapsed && main.contains(selection.anchorNode));
  };

  // Return whether the user has changed a field. The field may have lost the focus before the form is sent.
  const isChanged = field => {
    if (field.localName === "select") {
      const given = Array.from(field.options).findIndex(option => option.defaultSelected);
      return field.selectedIndex !== Math.max(given, 0);
    }
    if (field.type === "checkbox" || field.type === "radio") return field.checked !== field.defaultChecked;
    return "defaultValue" in field && field.value !== field.defaultValue;
  };

  const show = html => {
    if (isBusy()) {
      waiting = html;
      return;
    }
    waiting = null;
    if (document.body.hasAttribute("data-recover")) {
      location.reload(); // Redis is back: load the requested page, which also sets the title
      return;
    }
    Idiomorph.morph(main, html, {
      morphStyle: "innerHTML",
      ignoreActiveValue: true,
      callbacks: {
        beforeNodeMorphed: node => !(node.localName === "form" && Array.from(node.elements).some(isChanged)),
        // keep open what the user has opened
        beforeAttributeUpdated: (name, node) => !(name === "open" && node.localName === "details"),
      },
    });
    reveal();
    mark(); // morphing may have reused elements for other tasks
  };

  const sayAway = () => {
    if (!document.body.hasAttribute("data-recover")) say(notice.dataset.away);
  };

  const notLate = () => {
    clearTimeout(late);
    late = null;
  };

  const stop = () => {
    clearTimeout(timer);
    notLate();
    if (source) source.close();
    source = null;
  };

  const start = () => {
    stop();
    if (isPaused || document.hidden) return;
    source = new EventSource(location.href.split("#")[0]);
    source.addEventListener("page", event => {
      pause = RETRY_MS;
      say("");
      show(JSON.parse(event.data));
    });
    source.addEventListener("trouble", event => say(JSON.parse(event.data)));
    source.addEventListener("gone", event => {
      say(notice.dataset.gone.replace("…", () => JSON.parse(event.data)));
      stop();
    });
    source.onerror = () => {
      late ??= setTimeout(sayAway, LATE_MS); // streams end regularly, and the browser reconnects by itself
      if (source && source.readyState === EventSource.CLOSED) {
        stop();
        sayAway();
        timer = setTimeout(start, pause);
        pause = Math.min(2 * pause, RETRY_MAX_MS);
      }
    };
    source.onopen = () => {
      notLate();
      say("");
    };
  };

  if (isLive && window.EventSource) {
    live.hidden = false;
    button.addEventListener("click", () => {
      isPaused = !isPaused;
      button.textContent = isPaused ? button.dataset.resume : button.dataset.pause;
      start();
    });
    document.addEventListener("visibilitychange", start);
    window.addEventListener("pagehide", stop);
    window.addEventListener("pageshow", event => event.persisted && start());
    const later = () => setTimeout(() => waiting !== null && !isPaused && show(waiting));
    for (const kind of ["focusout", "change", "selectionchange", "mouseup"]) document.addEventListener(kind, later);
    document.getElementById("dialog").addEventListener("close", later);
    start();
  }

  // --- questions ---------------------------------------------------------------------------------------------------

  const dialog = document.getElementById("dialog");

  const ask = async (address, body) => {
    const how = body ? { method: "POST", body } : {};
    const response = await fetch(address, { credentials: "same-origin", redirect: "error", ...how });
    const found = new DOMParser().parseFromString(await response.text(), "text/html");
    const heading = found.getElementById("question");
    const form = found.querySelector("form[data-question]");
    if (!response.ok || !form || !heading) throw new Error("no question");
    dialog.replaceChildren(document.adoptNode(heading), document.adoptNode(form));
    dialog.showModal();
  };

  document.addEventListener("click", event => {
    const cancel = event.target.closest("dialog [data-cancel]");
    if (cancel) {
      event.preventDefault();
      dialog.close();
      return;
    }
    const link = event.target.closest("a[data-dialog]");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
    event.preventDefault();
    ask(link.href).catch(() => location.assign(link.href)); // the page shows the error
  });
  document.addEventListener("submit", event => {
    const form = event.target;
    if (!form.matches("form[data-dialog]")) return;
    event.preventDefault();
    ask(form.action, new URLSearchParams(new FormData(form, event.submitter))).catch(() => {
      form.removeAttribute("data-dialog"); // the page shows the error
      form.requestSubmit(event.submitter);
    });
  });
  document.addEventListener("keydown", event => {
    const link = event.target.closest("a[role=button]");
    if (link && event.key === " ") {
      event.preventDefault();
      link.click();
    }
  });

  // --- tables with checkboxes --------------------------------------------------------------------------------------

  document.addEventListener("change", event => {
    const all = event.target.closest("input[data-select-all]");
    if (!all) return;
    for (const box of all.closest("table").querySelectorAll("tbody input[type=checkbox]")) box.checked = all.checked;
  });

  // --- searches in several requests --------------------------------------------------------------------------------

  // Continue a search until the table has a number of rows or everything was read, and add the rows to the table.
  const found = document.querySelector("[data-search]");
  const rowsIn = part => Array.from(part.querySelectorAll("tbody > tr"));
  const keyOf = row => row.querySelector("th a")?.getAttribute("href");
  let isSearching = false;

  const fetchFound = async address => {
    try {
      const response = await fetch(address, { credentials: "same-origin", redirect: "error" });
      const page = new DOMParser().parseFromString(await response.text(), "text/html");
      return response.ok ? page.querySelector("[data-search]") : null;
    } catch {
      return null; // the link stays, so that the user can continue
    }
  };

  const add = fresh => {
    const body = found.querySelector("tbody");
    if (!body) {
      found.replaceChildren(...fresh.childNodes);
      return;
    }
    // Tasks that were added meanwhile shift others, so some rows repeat.
    const known = new Set(rowsIn(found).map(keyOf));
    body.append(...rowsIn(fresh).filter(row => !known.has(keyOf(row))));
    const progress = fresh.querySelector(".search");
    for (const each of found.querySelectorAll(".search")) each.replaceWith(progress.cloneNode(true));
  };

  const searchOn = async wanted => {
    if (isSearching) return true;
    isSearching = true;
    let fresh = found;
    for (let link; fresh && rowsIn(found).length < wanted && (link = found.querySelector(".search a")); ) {
      fresh = await fetchFound(link.href);
      if (fresh) add(fresh);
    }
    isSearching = false;
    reveal();
    return fresh !== null;
  };

  if (found) {
    const rows = Number(found.dataset.search);
    found.addEventListener("click", async event => {
      const link = event.target.closest(".search a");
      if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
      event.preventDefault();
      if (!(await searchOn(rowsIn(found).length + rows))) location.assign(link.href); // the page shows the error
    });
    document.addEventListener("DOMContentLoaded", () => searchOn(rows)); // when this script is complete
  }

  // --- actions in several requests ---------------------------------------------------------------------------------

  const goOn = document.querySelector("form[data-go-on]");
  if (goOn) {
    const next = setTimeout(() => goOn.requestSubmit(), 300);
    document.querySelector("[data-stop]").addEventListener("click", () => clearTimeout(next));
  }

  // --- copying -----------------------------------------------------------------------------------------------------

  let copied = null;
  let copiedTimer = null;

  const reveal = () => {
    if (navigator.clipboard) for (const each of document.querySelectorAll("[data-copy][hidden]")) each.hidden = false;
  };
  const mark = () => {
    for (const each of document.querySelectorAll("[data-copy]")) {
      each.classList.toggle("copied", each.dataset.copy === copied);
    }
  };
  document.addEventListener("click", async event => {
    const copy = event.target.closest("[data-copy]");
    if (!copy) return;
    const text = copy.dataset.copy;
    await navigator.clipboard.writeText(text);
    copied = text;
    mark();
    clearTimeout(copiedTimer);
    copiedTimer = setTimeout(() => {
      copied = null;
      mark();
    }, COPIED_MS);
  });
  reveal();
})();
