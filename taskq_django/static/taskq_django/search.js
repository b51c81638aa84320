/* Continues an incomplete search with further requests, and adds the rows that it finds to the list. */
"use strict";
{
  const most = 1000; // maximum number of rows; further rows need a click on the link

  async function fetchPage(address) {
    try {
      const response = await fetch(address, { cache: "no-store", redirect: "manual" });
      return response.ok ? new DOMParser().parseFromString(await response.text(), "text/html") : null;
    } catch {
      return null; // keep the link, so that the user can continue the search
    }
  }

  async function search() {
    let link = document.querySelector("[data-taskq-search] a");
    while (link !== null) {
      const fresh = await fetchPage(link.href);
      const help = fresh?.getElementById("searchbar_helptext");
      if (!help || fresh.querySelector(".paginator a") !== null) {
        return; // no answer, or too many rows for one page: keep the link
      }
      const found = fresh.querySelectorAll("#result_list > tbody > tr");
      const body = document.querySelector("#result_list > tbody");
      if (found.length > 0 && body === null) {
        location.replace(link.href); // the first rows need a page with the table's headings and the actions
        return;
      }
      body?.append(...Array.from(found, (row) => document.adoptNode(row)));
      document.body.classList.toggle("taskq-searched", body !== null);
      document.getElementById("searchbar_helptext").replaceWith(document.adoptNode(help));
      link = document.querySelector("[data-taskq-search] a");
      if (body !== null && body.rows.length >= most) {
        return;
      }
    }
  }

  search();
}
