/* Makes long lists easier to reach: the skip link leads to the first row, and on phones filters start closed. */
"use strict";
{
  const stored = "django.admin.filtersState"; // where Django stores which filters the user has opened and closed

  function known() {
    try {
      return JSON.parse(sessionStorage.getItem(stored)) ?? {};
    } catch {
      return {};
    }
  }

  function foldFilters() {
    const before = known();
    for (const filter of document.querySelectorAll("#changelist-filter details")) {
      const isChosen = filter.querySelector("li.selected") !== filter.querySelector("li"); // the first choice is "all"
      if (isChosen || !(filter.dataset.filterTitle in before)) {
        filter.open = isChosen;
      }
    }
  }

  if (matchMedia("(max-width: 767px)").matches) {
    document.addEventListener("DOMContentLoaded", foldFilters); // after Django's own script, which opens and closes them
  }

  document.querySelector(".taskq-skip")?.addEventListener("click", (event) => {
    const first = document.querySelector("#result_list tbody :is(a[href], input, button)");
    if (first !== null) {
      event.preventDefault();
      first.focus();
    }
  });
}
