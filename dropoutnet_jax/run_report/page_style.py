# SPDX-License-Identifier: Apache-2.0
"""How a report looks: one style sheet, light or dark as the reader has it."""

CSS = """\
:root {
  color-scheme: light dark;
  --back: #ffffff; --text: #1d2733; --quiet: #5b6875; --line: #d9dfe5;
  --raised: #f4f6f8; --link: #0b62b0; --mark: #fff0b8;
}
@media (prefers-color-scheme: dark) {
  :root {
    --back: #14191f; --text: #dfe5eb; --quiet: #98a5b2; --line: #333d48;
    --raised: #1d242c; --link: #77b6f2; --mark: #5a4a10;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 70rem;
  background: var(--back); color: var(--text);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
}
h1 { margin: 0; font-size: 1.9rem; line-height: 1.2; }
h1, summary { overflow-wrap: anywhere; }
h2 {
  margin: 2.5rem 0 0.75rem; padding-bottom: 0.25rem;
  border-bottom: 1px solid var(--line); font-size: 1.35rem;
}
h3 { margin: 1.75rem 0 0.5rem; font-size: 1.08rem; }
p, li { max-width: 48rem; overflow-wrap: anywhere; }
.lead { margin: 0.5rem 0 1rem; color: var(--quiet); font-size: 1.05rem; }
a { color: var(--link); }
nav ul {
  display: flex; flex-wrap: wrap; gap: 0.25rem 1.25rem;
  margin: 0; padding: 0.6rem 1rem; list-style: none;
  background: var(--raised); border-radius: 0.5rem;
}
.scroll { overflow-x: auto; margin: 0.75rem 0 1.25rem; }
table { border-collapse: collapse; font-size: 0.92rem; }
caption {
  max-width: 40rem; padding-bottom: 0.35rem;
  color: var(--quiet); text-align: left;
}
th, td {
  padding: 0.3rem 0.8rem 0.3rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line);
}
th { color: var(--quiet); font-weight: 600; white-space: nowrap; }
th.number, td.number {
  padding: 0.3rem 0 0.3rem 1rem; text-align: right; white-space: nowrap;
  font-variant-numeric: tabular-nums;
}
td:not(:last-child) { white-space: nowrap; }
td small { display: block; color: var(--quiet); font-size: 0.8rem; }
mark { background: var(--mark); color: inherit; padding: 0 0.2rem; }
pre {
  overflow-x: auto; padding: 0.7rem 1rem; margin: 0.75rem 0;
  background: var(--raised); border-radius: 0.5rem; font-size: 0.88rem;
}
details { margin: 0.5rem 0; }
summary { cursor: pointer; }
details > :not(summary) { margin-left: 1rem; }
.beside {
  display: grid; gap: 1rem 1.5rem; margin: 1rem 0;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 28rem), 1fr));
}
.beside > * { min-width: 0; }
figure { margin: 0; max-width: 40rem; }
figure svg { display: block; width: 100%; height: auto; }
figure svg * { stroke-linejoin: round; stroke-linecap: butt; }
figure svg text { font-family: "DejaVu Sans", Verdana, system-ui, sans-serif; }
figcaption { color: var(--quiet); font-size: 0.88rem; }
@media print { body { max-width: none; } nav { display: none; } }
"""
