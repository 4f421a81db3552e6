"use strict";

const root = document.documentElement;

document.getElementById("theme").addEventListener("click", () => {
  const dark = root.dataset.theme
    ? root.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});

for (const button of document.querySelectorAll(".copy")) {
  const code = button.parentElement.querySelector("code");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
    } catch {
      // Without the right to the clipboard the text is selected, one key from being copied
      getSelection().selectAllChildren(code);
      button.textContent = "Selected";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
}

for (const table of document.querySelectorAll("table.sort")) {
  const heads = [...table.tHead.rows[0].cells];
  const key = (row, at) => row.cells[at].dataset.value ?? row.cells[at].textContent;
  heads.forEach((head, at) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const sign = head.ariaSort === "ascending" ? -1 : 1;
      const rows = [...table.tBodies[0].rows];
      rows.sort((a, b) => sign * key(a, at).localeCompare(key(b, at), "en", { numeric: true }));
      if (rows.every((row) => row.cells[at].dataset.value !== undefined)) {
        rows.sort((a, b) => sign * (key(a, at) - key(b, at)));
      }
      table.tBodies[0].replaceChildren(...rows);
      for (const other of heads) other.ariaSort = null;
      head.ariaSort = sign === 1 ? "ascending" : "descending";
    });
  });
}

// A printed page shows everything
addEventListener("beforeprint", () => {
  for (const fold of document.querySelectorAll("details")) fold.open = true;
});
