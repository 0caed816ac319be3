// The scripts of this folder share a browser and a site.
const fs = require('fs');
const http = require('http');
const path = require('path');
const { default: chromium = require('@sparticuz/chromium') } = require('@sparticuz/chromium'); // its form depends on the version of Node
const puppeteer = require('puppeteer-core');

// The package looks for fonts only below /tmp. Without fonts, a page with text crashes.
function setFonts() {
  const file = path.join(process.env.TMPDIR, 'fonts', 'fonts.conf');
  fs.writeFileSync(file, fs.readFileSync(file, 'utf8').replace('<dir>/tmp/fonts</dir>', '<dir>' + path.dirname(file) + '</dir>'));
}

// site serves published packages below /lib/, and a page at every other path.
function site(body) {
  return http.createServer((request, answer) => {
    const { pathname } = new URL(request.url, 'http://site');
    if (!pathname.startsWith('/lib/')) return answer.writeHead(200, { 'Content-Type': 'text/html' }).end('<!doctype html><title>a page</title>' + body);
    fs.createReadStream(path.join(process.env.NODE_PATH, pathname.slice('/lib/'.length))).pipe(answer.writeHead(200, { 'Content-Type': 'text/javascript' }));
  });
}

// unpack unpacks the browser, and returns its path.
async function unpack() {
  const executablePath = await chromium.executablePath();
  setFonts();
  return executablePath;
}

// run calls what with the browser and the address of the site.
module.exports = async (body, what) => {
  const pages = site(body);
  await new Promise(listening => pages.listen(0, '127.0.0.1', listening));
  const executablePath = await unpack();
  const browser = await puppeteer.launch({ executablePath, args: ['--no-sandbox', '--no-zygote', '--disable-gpu'], headless: 'shell', protocolTimeout: 60_000 });
  console.error(await browser.version());
  try {
    await what(browser, 'http://127.0.0.1:' + pages.address().port);
  } finally {
    await browser.close();
    pages.closeAllConnections();
    pages.close();
  }
};
module.exports.unpack = unpack;
