// Starts the page: theme, printing, folded parts, and the explorer.

function chooseColours() {
  const choice = document.getElementById("theme");
  choice.hidden = false; // hidden in the HTML, because it needs this script
  choice.addEventListener("change", (event) => {
    document.documentElement.style.colorScheme = event.target.value;
  });
}

// Open all folded details while the page is printed.
function unfoldForPrint() {
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("main > :not(#runs) details:not([open])")];
    for (const details of folded) details.open = true;
  });
  addEventListener("afterprint", () => {
    for (const details of folded) details.open = false;
  });
}

// The contents are beside the page if there is room; else they fold, also after a choice.
function foldContents() {
  const contents = document.querySelector(".contents details");
  const wide = matchMedia("(min-width: 1100px)");
  const fit = () => (contents.open = wide.matches);
  wide.addEventListener("change", fit);
  contents.addEventListener("click", (event) => {
    if (event.target.matches("a")) fit();
  });
  fit();
}

// A button that opens or closes the details of all claims.
function openAll() {
  const all = document.getElementById("open-all");
  const claims = [...document.querySelectorAll("#claims details.more")];
  all.hidden = !claims.length;
  all.addEventListener("click", () => {
    const open = claims.some((details) => !details.open);
    for (const details of claims) details.open = open;
    all.textContent = open ? "Close all details" : "Open all details";
  });
}

// Open the details of the claim that a link names, or all details around its target.
function openTargets() {
  const open = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    const own = target.matches(".claim") ? target.querySelector("details.more") : null;
    for (let node = own ?? target; node; node = node.parentElement) {
      if (node.matches("details")) node.open = true;
    }
    target.scrollIntoView({ behavior: "instant" });
  };
  addEventListener("hashchange", open);
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.('a[href^="#"]');
    if (link?.hash === location.hash) open(); // no hashchange if the hash is the same
  });
  open();
}

async function start() {
  chooseColours();
  unfoldForPrint();
  openAll();
  foldContents();
  const place = document.getElementById("explorer");
  const data = document.getElementById("data").textContent;
  try {
    const runs = await unpack(data);
    if (place) explorer(runs, place);
  } catch (error) {
    const message = `The runs cannot be unpacked (${error}). This needs a browser from 2024 or later.`;
    place?.replaceChildren(element("p", { className: "note" }, message));
    throw error; // prints the stack trace in the console
  } finally {
    openTargets(); // last, because the explorer changes the height of the page
  }
}

await start();
