/* Refreshes a page: loads the same page every few seconds and replaces the elements that have changed.
 *
 * The page is not refreshed in a background tab, or while a row or text is selected or a field has the focus. Texts and
 * the interval are attributes of the script's own element.
 */
"use strict";
{
  const options = document.currentScript.dataset;
  const every = Math.max(1, Number(options.seconds)) * 1000;
  const longest = 60000;
  const key = "taskq.live";
  const reachable = "a[href], summary, button";
  const scrolled = ".taskq-scroll-x, .taskq-scroll, pre";
  let failures = 0;
  let timer = 0;
  let took = 0;
  let refreshing = false;
  let ended = false;

  function isPaused() {
    try {
      return localStorage.getItem(key) === "paused";
    } catch {
      return false;
    }
  }

  function savePaused(paused) {
    try {
      localStorage.setItem(key, paused ? "paused" : "live");
    } catch {
      /* local storage is not available: the setting applies to this page only */
    }
  }

  /* --- pause button and notice ------------------------------------------------------------------------------------ */

  const bar = document.createElement("div");
  const notice = document.createElement("span");
  const button = document.createElement("button");
  let paused = isPaused();

  function draw() {
    button.textContent = paused ? options.resume : options.pause;
    bar.classList.toggle("taskq-live-paused", paused);
  }

  function showNotice(text) {
    if (notice.textContent !== text) {
      notice.textContent = text;
    }
  }

  /* --- timing ---------------------------------------------------------------------------------------------------- */

  function isBusy() {
    const focused = document.activeElement;
    const selection = document.getSelection();
    return (
      document.hidden ||
      document.querySelector("[data-taskq-search] a, body.taskq-searched") !== null ||
      document.querySelector(".action-select:checked, #action-toggle:checked") !== null ||
      (focused !== null && focused.matches("input, select, textarea, [contenteditable]")) ||
      (selection !== null && !selection.isCollapsed)
    );
  }

  function wait() {
    clearTimeout(timer);
    if (!paused && !ended) {
      // A slow page, such as a search, is loaded less often.
      timer = setTimeout(refresh, Math.min(Math.max(every * 2 ** failures, 10 * took), longest));
    }
  }

  async function refresh() {
    if (refreshing || isBusy()) {
      wait();
      return;
    }
    refreshing = true;
    const began = performance.now();
    let fresh = null;
    try {
      fresh = await fetchPage();
    } catch {
      /* timeout or network error: handled below */
    }
    took = performance.now() - began;
    refreshing = false;
    if (ended) {
      showNotice(options.ended);
      return;
    }
    failures = fresh === null ? failures + 1 : 0;
    showNotice(fresh === null ? options.failed : "");
    wait();
    if (fresh !== null && !paused && !isBusy()) {
      swap(fresh); // does nothing if the user has started to select something while the page was loading
    }
  }

  /** Return the current page, or null if the server reports an error or the page shows that Redis does not answer. */
  async function fetchPage() {
    const response = await fetch(location.href, {
      cache: "no-store",
      headers: { [options.header]: "1" },
      redirect: "manual",
      signal: AbortSignal.timeout(10000),
    });
    ended = response.type === "opaqueredirect" || response.status === 403 || response.status === 404;
    if (!response.ok) {
      return null;
    }
    const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
    return fresh.querySelector("#changelist, [data-taskq-live]") === null ? null : fresh;
  }

  /* --- replacing elements ----------------------------------------------------------------------------------------- */

  function swap(fresh) {
    const table = document.getElementById("result_list");
    const freshTable = fresh.getElementById("result_list");
    if ((table === null) !== (freshTable === null)) {
      location.reload(); // the list became empty or got its first row, so the form with the actions appears or disappears
      return;
    }
    if (table !== null) {
      swapRows(table, freshTable);
    }
    for (const selector of [".paginator", ".action-counter", "#searchbar_helptext"]) {
      swapAll(selector, fresh);
    }
    swapAll("#changelist-filter li", fresh);
    if (document.querySelector("[data-taskq-live]") !== null) {
      swapFields(fresh);
      swapAll("[data-taskq-live]", fresh);
    }
  }

  /** Replace the fields of the page of one row. Some fields exist only in some states, such as the end of a workflow. */
  function swapFields(fresh) {
    const rowsOf = (page) => Array.from(page.querySelectorAll(".form-row")).filter((row) => row.querySelector(".readonly"));
    const known = new Map(rowsOf(document).map((row) => [row.className, row]));
    let last = null;
    for (const now of rowsOf(fresh)) {
      const old = known.get(now.className);
      known.delete(now.className);
      if (old === undefined) {
        last?.after(document.adoptNode(now));
      } else {
        const values = now.querySelectorAll(".readonly");
        old.querySelectorAll(".readonly").forEach((value, number) => values[number] && swapElement(value, values[number]));
      }
      last = old ?? now;
    }
    known.forEach((row) => row.remove());
  }

  /** Replace the elements of a selector one by one. Do nothing if the two pages have different numbers of them. */
  function swapAll(selector, fresh) {
    const old = document.querySelectorAll(selector);
    const now = fresh.querySelectorAll(selector);
    if (old.length === now.length) {
      old.forEach((element, number) => swapElement(element, now[number]));
    }
  }

  function swapElement(old, now) {
    const folds = now.querySelectorAll("details");
    old.querySelectorAll("details").forEach((each, number) => {
      if (folds[number]) {
        folds[number].open = each.open;
      }
    });
    if (old.isEqualNode(now)) {
      return;
    }
    const focused = Array.from(old.querySelectorAll(reachable)).indexOf(document.activeElement);
    const places = Array.from(old.querySelectorAll(scrolled), (each) => [each.scrollLeft, each.scrollTop]);
    old.replaceWith(document.adoptNode(now));
    now.querySelectorAll(scrolled).forEach((each, number) => each.scrollTo(...(places[number] ?? [0, 0])));
    if (focused >= 0) {
      now.querySelectorAll(reachable)[focused]?.focus({ preventScroll: true });
    }
  }

  function keyOf(row) {
    const box = row.querySelector(".action-select");
    const link = row.querySelector("a[href]");
    return box !== null ? box.value : link !== null ? link.getAttribute("href") : row.textContent;
  }

  function cellsOf(row) {
    return Array.from(row.querySelectorAll(":scope > td, :scope > th, :scope > tr > td, :scope > tr > th"));
  }

  /** Replace the rows by those of the fresh page. Rows that remain keep their element; only changed cells are replaced. */
  function swapRows(table, freshTable) {
    // Django has one body with all rows; some themes have a body for each row.
    const parted = table.tBodies.length > 1 || freshTable.tBodies.length > 1;
    const parent = parted ? table : table.tBodies[0];
    const rows = parted ? table.tBodies : parent.rows;
    const known = new Map(Array.from(rows, (row) => [keyOf(row), row]));
    let place = 0;
    for (const now of Array.from(parted ? freshTable.tBodies : freshTable.tBodies[0].rows)) {
      const key = keyOf(now);
      const cells = cellsOf(now); // read once, because swapElement removes cells from this row
      let row = known.get(key);
      const old = row === undefined ? [] : cellsOf(row);
      if (row === undefined || old.length !== cells.length) {
        row = document.adoptNode(now);
      } else {
        known.delete(key);
        old.forEach((cell, number) => swapElement(cell, cells[number]));
      }
      if (rows[place] !== row) {
        parent.insertBefore(row, rows[place] ?? null);
      }
      place += 1;
    }
    while (rows.length > place) {
      rows[place].remove();
    }
  }

  /* --- Django's own script for selecting rows -------------------------------------------------------------------- */

  /* Django passes the checkboxes that exist when the page is loaded. A live collection also has later ones. */
  if (window.Actions) {
    const select = window.Actions;
    window.Actions = function (boxes, given) {
      const live = document.getElementsByClassName("action-select");
      live.forEach = Array.prototype.forEach;
      select(live, given);
    };
  }

  /* --- start ----------------------------------------------------------------------------------------------------- */

  const main = document.getElementById("content-main") ?? document.getElementById("changelist")?.parentElement;
  if (main && document.querySelector("#changelist, [data-taskq-live]") !== null) {
    bar.className = "taskq-live";
    notice.className = "taskq-live-notice";
    notice.setAttribute("role", "status");
    button.type = "button";
    button.addEventListener("click", () => {
      paused = !paused;
      savePaused(paused);
      failures = 0;
      draw();
      showNotice("");
      if (paused) {
        clearTimeout(timer);
      } else {
        refresh();
      }
    });
    bar.append(notice, button);
    main.prepend(bar);
    draw();
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden && !paused && !ended) {
        clearTimeout(timer);
        refresh();
      }
    });
    wait();
  }
}
