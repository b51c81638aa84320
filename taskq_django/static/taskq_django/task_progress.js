// Updates the progress bar of {% task_progress %}: requests the status of the task until the task has ended.
// Each status is also sent to the page as the event `taskq:status`, with the status as `event.detail`.
(() => {
  "use strict";

  const FIRST_MS = 1000;
  const LONGEST_MS = 10000; // maximum time between two requests while the status does not change

  function draw(box, status) {
    const bar = box.querySelector("progress");
    const progress = status.progress;
    if (progress && progress.total) {
      bar.max = progress.total;
      bar.value = progress.done;
    } else if (!status.is_final) {
      bar.removeAttribute("value"); // the progress is unknown
    }
    if (status.is_final) {
      bar.value = status.state === "completed" ? bar.max : bar.value;
    }
    box.querySelector("[role=status]").textContent = status.text;
    box.dataset.taskqState = status.state;
    box.dispatchEvent(new CustomEvent("taskq:status", { bubbles: true, detail: status }));
  }

  // Returns the status, null after a temporary error, undefined after a permanent one.
  async function fetchStatus(url) {
    let answer;
    try {
      answer = await fetch(url, { headers: { Accept: "application/json" } });
    } catch {
      return null;
    }
    if (answer.status >= 500 || answer.status === 429) {
      return null;
    }
    const status = await answer.json().catch(() => undefined); // not JSON, for example a login page
    return status && status.state ? status : undefined;
  }

  async function poll(box) {
    let last = "";
    let pause = FIRST_MS;
    for (;;) {
      const status = await fetchStatus(box.dataset.taskqStatus);
      if (status === undefined || !box.isConnected) {
        return;
      }
      const text = JSON.stringify(status);
      pause = status && text !== last ? FIRST_MS : Math.min(1.5 * pause, LONGEST_MS);
      if (status && text !== last) {
        last = text;
        draw(box, status);
      }
      if (status && status.is_final) {
        return;
      }
      await new Promise((resolve) => setTimeout(resolve, pause));
    }
  }

  for (const box of document.querySelectorAll("[data-taskq-status]")) {
    if (!box.taskqPolled) {
      box.taskqPolled = true; // every tag on the page loads this script
      poll(box);
    }
  }
})();
