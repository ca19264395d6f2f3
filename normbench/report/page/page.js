// The page: colours, print, the gallery's sliders, and the explorer once it is unpacked.

function chooseColours() {
  const choice = document.getElementById("theme");
  choice.hidden = false; // without a script there is nothing to choose
  choice.addEventListener("change", (event) => {
    document.documentElement.style.colorScheme = event.target.value;
  });
}

// Paper cannot be unfolded.
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

// The slider walks over the outputs that the sheet below it lists.
function slideOverOutputs(content, colourOf) {
  const viewer = content.querySelector(".viewer");
  const slider = viewer.querySelector("input");
  const outputs = [...content.querySelectorAll("li[data-label]")];
  const show = () => {
    const { norm, label } = outputs[slider.value].dataset;
    const picture = viewer.querySelector(".chosen");
    picture.src = outputs[slider.value].querySelector("img").src;
    picture.alt = `Output of ${label} for each crop`;
    viewer.querySelector("output").textContent = label;
    viewer.querySelector(".swatch").style.background = colourOf(norm);
    slider.setAttribute("aria-valuetext", label);
  };
  slider.addEventListener("input", show);
  viewer.hidden = false;
  show();
}

async function start() {
  chooseColours();
  unfoldForPrint();
  const place = document.getElementById("explorer");
  const data = document.getElementById("data").textContent;
  let runs = null;
  try {
    runs = await unpack(data);
    if (place) explorer(runs, place);
  } catch (error) {
    const words = `The runs cannot be unpacked (${error}); this needs a browser of 2023 or later.`;
    place?.replaceChildren(element("p", { className: "note" }, words));
    throw error; // whoever looks at the console should see where
  } finally {
    for (const content of document.querySelectorAll(".content")) {
      slideOverOutputs(content, (norm) => runs?.colour(norm) ?? "transparent");
    }
  }
}

await start();
