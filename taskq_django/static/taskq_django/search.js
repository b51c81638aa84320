/* Continues an incomplete search until a page is full or everything was read, and adds the rows to the list.
 *
 * A click on the link of the search adds a further page. Without this script, the link shows the next rows.
 */
"use strict";
{
  const places = "[data-taskq-search]"; // above and below the list
  let running = false;

  function linkOf() {
    return document.querySelector(`${places} a`);
  }

  function keyOf(row) {
    return row.querySelector(".action-select")?.value ?? row.querySelector("a[href]")?.getAttribute("href") ?? row.textContent;
  }

  function rowsOf(page) {
    return Array.from(page.querySelectorAll("#result_list > tbody > tr"));
  }

  async function fetchPage(address) {
    try {
      const response = await fetch(address, { cache: "no-store", redirect: "manual" });
      return response.ok ? new DOMParser().parseFromString(await response.text(), "text/html") : null;
    } catch {
      return null; // keep the link, so that the user can continue the search
    }
  }

  /** Add the rows of a page that are not in the list yet. Tasks that were added meanwhile shift others, so some repeat. */
  function append(body, fresh) {
    const found = rowsOf(fresh);
    const known = new Set(rowsOf(document).map(keyOf));
    body.append(...found.filter((row) => !known.has(keyOf(row))));
    document.body.classList.add("taskq-searched");
    for (const selector of [".actions .question a", ".actions .all"]) {
      const old = document.querySelector(selector);
      old?.replaceChildren(fresh.querySelector(selector)?.textContent ?? old.textContent);
    }
    const counter = document.querySelector(".action-counter");
    if (counter !== null) {
      counter.dataset.actionsIcnt = body.rows.length;
      body.querySelector(".action-select")?.dispatchEvent(new Event("change", { bubbles: true })); // Django's script counts
    }
  }

  /** Continue until the list has this many rows. Return false if the server did not answer. */
  async function search(wanted) {
    let link = linkOf();
    while (link !== null && rowsOf(document).length < wanted) {
      const fresh = await fetchPage(link.href);
      const progress = fresh?.querySelector(places);
      if (!progress) {
        return false;
      }
      const found = rowsOf(fresh);
      const body = document.querySelector("#result_list > tbody");
      if (found.length > 0 && body === null) {
        location.replace(link.href); // the first rows need a page with the table's headings and the actions
        return true;
      }
      if (found.length > 0) {
        append(body, fresh);
      }
      for (const place of document.querySelectorAll(places)) {
        place.replaceWith(progress.cloneNode(true));
      }
      link = linkOf();
    }
    return true;
  }

  async function searchOnce(wanted) {
    if (running) {
      return true;
    }
    running = true;
    const answered = await search(wanted);
    running = false;
    return answered;
  }

  document.addEventListener("click", async (event) => {
    const link = event.target.closest(`${places} a`);
    if (link === null || event.ctrlKey || event.metaKey || event.shiftKey || event.button) {
      return;
    }
    event.preventDefault();
    const pageSize = Number(link.closest(places).dataset.taskqSearch);
    if (!(await searchOnce(rowsOf(document).length + pageSize))) {
      location.assign(link.href); // the page shows what is wrong
    }
  });

  const first = document.querySelector(places);
  if (first !== null) {
    searchOnce(Number(first.dataset.taskqSearch));
  }
}
