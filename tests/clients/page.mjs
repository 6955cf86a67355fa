// The page in headless Chromium, at the width of a desk and of a phone: makes pictures, watches them come, uses the
// buttons and the keyboard, and leaves screenshots.
//   node page.mjs PROGRAM GOLDEN SCREENSHOTS
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdirSync } from "node:fs";
import { createInterface } from "node:readline";
import chromium from "@sparticuz/chromium";
import puppeteer from "puppeteer-core";

const [program, golden, screenshots] = process.argv.slice(2);
mkdirSync(screenshots, { recursive: true });

async function serve(...args) {
  const server = spawn(program, ["serve", "--port", "0", "--device", "cpu", "--quiet", "--image-size", "256",
    "--vq-ckpt", `${golden}/vq16/vq.pt`, ...args], { stdio: ["ignore", "pipe", "inherit"] });
  process.on("exit", () => server.kill());
  const [address] = await Promise.race([
    createInterface({ input: server.stdout })[Symbol.asyncIterator]().next().then(line => [line.value]),
    new Promise((_, fail) => server.once("exit", code => fail(new Error(`it ended with ${code}`)))),
  ]);
  return { server, address };
}

const browser = await puppeteer.launch({
  args: [...chromium.args, "--no-sandbox"],
  executablePath: process.env.CHROMIUM ?? await chromium.executablePath(),
  headless: "shell",
});

async function open(address, width, height) {
  const page = await browser.newPage();
  const wrong = [];
  page.on("pageerror", error => wrong.push(error.message));
  // Only what the server itself refuses may be in the log.
  page.on("console", message => {
    if (message.type() === "error" && !/status of (401|429|503)/.test(message.text())) wrong.push(message.text());
  });
  page.on("request", request => {
    const own = request.url().startsWith(address) || request.url().startsWith("data:");
    if (!own) wrong.push(`${request.url()} is elsewhere`);
  });
  await page.setViewport({ width, height, deviceScaleFactor: 1, isMobile: width < 600, hasTouch: width < 600 });
  await page.goto(address);
  await page.waitForSelector("#go:not(:disabled)", { timeout: 120_000 });
  return { page, wrong };
}

const done = (page, count) =>
  page.waitForFunction(count => document.querySelectorAll("#gallery a[download]").length === count,
    { timeout: 120_000 }, count);
// Notes what the gallery shows from now on, at every change of it.
const watch = page => page.evaluate(() => {
  const seen = window.seen = { veil: false, row: false, preview: false };
  const look = () => {
    seen.veil ||= document.querySelector("#gallery .veil") !== null;
    seen.row ||= [...document.querySelectorAll(".about")].some(about => /^row \d+ of 16$/m.test(about.innerText));
    seen.preview ||= document.querySelector("#gallery li:has(.veil) img[src]") !== null;
  };
  new MutationObserver(look).observe(document.querySelector("#gallery"),
    { subtree: true, childList: true, attributes: true, characterData: true });
});
// A stream's events come one after the other, whatever the machine.
const SLOW = { download: 400_000, upload: 400_000, latency: 0 };
const fill = (page, id, value) =>
  page.$eval(`#${id}`, (input, value) => { input.value = value; input.dispatchEvent(new Event("input")); }, value);
const text = (page, selector) => page.$eval(selector, element => element.textContent);
const wide = page => page.evaluate(() => document.documentElement.scrollWidth > innerWidth);

const classes = await serve("--gpt-ckpt", `${golden}/c2i/gpt.pt`, "--batch-size", "2");
for (const [name, width, height] of [["desk", 1280, 860], ["phone", 390, 844]]) {
  const { page, wrong } = await open(classes.address, width, height);
  assert.match(await text(page, "#model"), /^gpt, 256 × 256 pixels, 10 classes$/);
  assert.equal(await page.$eval("#prompt-label", label => label.offsetParent), null, "a class model takes no prompt");
  await fill(page, "class", "7");
  await fill(page, "n", "3");
  await fill(page, "seed", "11");
  await page.click("summary");
  await fill(page, "temperature", "0.9");
  await watch(page);
  await page.emulateNetworkConditions(SLOW);
  await page.click("#go");
  await page.waitForSelector("#gallery li", { timeout: 120_000 });
  await page.screenshot({ path: `${screenshots}/${name}-drawing.png` });
  await done(page, 3);
  await page.emulateNetworkConditions(null);
  // Rows were told, and previews were there before their pictures were done.
  assert.deepEqual(await page.evaluate(() => window.seen), { veil: true, row: true, preview: true });
  assert.match(await text(page, "#told"), /^3 pictures in \d+\.\d\d s$/);
  assert.match(await text(page, "#gallery li:nth-child(2) p"), /^class 7seed 11, no\. 1, temperature 0\.9$/);
  assert.equal(await page.$$eval("#gallery img", images => images.filter(image => image.naturalWidth === 256).length), 3);
  assert.equal(await wide(page), false, "nothing sticks out to the side");

  // The second picture's settings, made once more by the keyboard, are the same picture.
  const source = await page.$eval("#gallery li:nth-child(2) img", image => image.src);
  const command = await page.evaluate(() => new Promise(resolve => {
    navigator.clipboard.writeText = async text => resolve(text);
    document.querySelector("#gallery li:nth-child(2) .about button").click();
  }));
  assert.match(command, /^curl http:\/\/127\.0\.0\.1:\d+\/v1\/images\/generations/);
  const body = command.match(/-d '([^']*)'/)[1];
  const reply = await page.evaluate(async body => {
    const response = await fetch("v1/images/generations",
      { method: "POST", headers: { "Content-Type": "application/json" }, body });
    return (await response.json()).data[0].b64_json;
  }, body);
  assert.equal("data:image/png;base64," + reply, source, "the curl command makes this very picture");

  // By the keyboard alone: the settings of a picture, another seed, a run, a large view.
  await page.$eval("#gallery li:nth-child(3) .about button:nth-of-type(2)", button => button.focus());
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate(() => document.activeElement.id), "go");
  const number = await page.$eval("#first_image", input => input.value);
  assert.equal(number, "2", "a picture is its seed and its number");
  await fill(page, "seed", "12");
  await page.keyboard.down("Control");
  await page.keyboard.press("Enter");
  await page.keyboard.up("Control");
  await done(page, 4);
  assert.match(await text(page, "#gallery li:nth-child(1) p"), /^class 7seed 12, no\. 2, temperature 0\.9$/);
  await page.focus("#gallery .frame");
  await page.keyboard.press("Enter");
  assert.equal(await page.$eval("#large", dialog => dialog.open), true);
  await page.keyboard.press("Escape");
  assert.equal(await page.$eval("#large", dialog => dialog.open), false);
  await page.screenshot({ path: `${screenshots}/${name}-gallery.png`, fullPage: name === "phone" });

  // Stopped in the middle, and a class that is none.
  await fill(page, "n", "10");
  await page.emulateNetworkConditions(SLOW);
  await page.click("#go");
  await page.waitForSelector("#gallery .veil");
  await page.keyboard.press("Escape");
  await page.waitForFunction(() => document.querySelector("#told").textContent === "stopped");
  await page.emulateNetworkConditions(null);
  await fill(page, "n", "1");
  await fill(page, "class", "boat");
  page.removeAllListeners("console");
  await page.click("#go");
  await page.waitForSelector("#told.wrong");
  assert.match(await text(page, "#told"), /prompt boat: expected a class number/);
  await page.screenshot({ path: `${screenshots}/${name}-refused.png` });
  assert.deepEqual(wrong, []);
  await page.close();
}
classes.server.kill("SIGTERM");

const texts = await serve("--gpt-ckpt", `${golden}/t2i/gpt.pt`, "--t5-path", `${golden}/t5`);
const { page, wrong } = await open(texts.address, 390, 844);
await page.type("#prompt", "a red square <b>left</b> of a \"circle\"");
await page.click("#go");
await done(page, 1);
assert.match(await text(page, "#gallery b"), /^a red square <b>left<\/b> of a "circle"$/);
await page.screenshot({ path: `${screenshots}/phone-prompt.png` });
assert.deepEqual(wrong, []);
texts.server.kill("SIGTERM");
console.log(`${await browser.version()}: the page is as it should be; screenshots in ${screenshots}`);
await browser.close();
