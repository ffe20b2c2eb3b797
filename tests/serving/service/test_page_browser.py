# SPDX-License-Identifier: Apache-2.0
"""The page in a real browser: its three stories, the keyboard, the network.

Needs pip install '.[browser]' and a Chromium on the path; --headless, so no
screen. Screenshots of the stories are left in the folder of the test.
"""

from collections.abc import Iterator
import contextlib
import shutil
import socket
import threading
import time

import pytest
import uvicorn

from dropoutnet_jax.serving.service import app as app_lib

sync_api = pytest.importorskip(
    'playwright.sync_api', reason="needs pip install '.[browser]'"
)
_NAMES = ('chromium', 'chromium-browser', 'google-chrome', 'chrome')
_FLAGS = [
    '--no-sandbox',
    '--disable-gpu',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
]
_PATIENCE = 60_000  # ms


@contextlib.contextmanager
def _listening(service, key=None) -> Iterator[str]:
  """Serves in a thread; yields the address."""
  listener = socket.create_server(('127.0.0.1', 0))
  config = uvicorn.Config(
      app_lib.make(service, key), log_level='error', lifespan='off'
  )
  server = uvicorn.Server(config)
  thread = threading.Thread(target=server.run, args=([listener],))
  thread.start()
  try:
    yield f'http://127.0.0.1:{listener.getsockname()[1]}/'
  finally:
    server.should_exit = True
    thread.join(30)


@pytest.fixture(scope='module', name='browser')
def fixture_browser():
  found = [path for path in map(shutil.which, _NAMES) if path]
  if not found:
    pytest.skip(f'needs a browser on the path: {", ".join(_NAMES)}')
  with sync_api.sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=found[0], args=_FLAGS)
    yield browser
    browser.close()


@pytest.fixture(scope='module', name='running')
def fixture_running(start, tmp_path_factory):
  path = tmp_path_factory.mktemp('browser') / 'state.sqlite'
  with start(path) as running:
    yield running


@pytest.fixture(scope='module', name='base')
def fixture_base(running) -> Iterator[str]:
  with _listening(running.service) as base:
    yield base


@pytest.fixture(name='page')
def fixture_page(browser, base):
  """The page, open; in the end nothing went elsewhere or wrong."""
  context = browser.new_context(viewport={'width': 1200, 'height': 900})
  context.set_default_timeout(_PATIENCE)
  page, asked, wrong = context.new_page(), [], []
  page.on('request', lambda request: asked.append(request.url))
  page.on('pageerror', lambda error: wrong.append(str(error)))
  page.on(
      'console',
      lambda message: wrong.append(message.text)
      # A refusal is told on the page as well.
      if message.type == 'error' and 'Failed to load' not in message.text
      else None,
  )
  page.goto(base)
  page.wait_for_selector('#lists-list li')
  yield page
  elsewhere = [url for url in asked if not url.startswith((base, 'data:'))]
  assert asked and not elsewhere
  assert not wrong
  context.close()


def _names(page, node):
  return page.locator(f'{node} .name').all_inner_texts()


def _press_until(page, key, selector, most=80):
  """Presses a key until an element has the focus."""
  for _ in range(most):
    if page.locator(selector).evaluate('e => e === document.activeElement'):
      return
    page.keyboard.press(key)
  raise AssertionError(f'{selector} cannot be reached by {key}')


def _wait(read, wanted):
  deadline = time.monotonic() + 30
  while read() != wanted:
    assert time.monotonic() < deadline, (read(), wanted)
    time.sleep(0.05)


def test_a_list_with_reasons(page, running, tmp_path):
  page.fill('#lists-user', 'u7')
  page.click('text=Show the list')
  wanted = running.lists({'id': 'u7'}, k=10)[0]
  _wait(lambda: _names(page, '#lists-list'), wanted)
  assert page.locator('#lists-list .chips').count() == 10
  assert '10 items for u7' in page.inner_text('#lists-message')
  page.select_option('#lists-candidates', 'new')
  page.click('text=Show the list')
  wanted = running.lists({'id': 'u7'}, k=10, candidates='new')[0]
  _wait(lambda: _names(page, '#lists-list'), wanted)
  page.check('text=somebody new')
  page.select_option('#user-region', 'south')
  page.fill('#user-age', '41')
  page.fill('#chips-items', 'i3,')
  page.select_option('#lists-candidates', 'all')
  page.click('text=Show the list')
  content = {'region': 'south', 'age': 41}
  wanted = running.lists({'content': content, 'history': ['i3']}, k=10)[0]
  _wait(lambda: _names(page, '#lists-list'), wanted)
  picture = page.screenshot(path=tmp_path / 'list.png', full_page=True)
  assert len(picture) > 20_000


def test_a_new_item_and_its_audience(page, running, tmp_path):
  page.click('#tab-item')
  bare = running.post('/page/audience', content={}, k=10)
  _wait(lambda: _names(page, '#item-list'), [x['id'] for x in bare['users']])
  page.fill('#chips-tags', 'word3,word5,')
  page.fill('#item-image', '0.5, -1, 2')
  content = {'tags': ['word3', 'word5'], 'image': [0.5, -1, 2]}
  found = running.post('/page/audience', content=content, k=10)
  _wait(lambda: _names(page, '#item-list'), [x['id'] for x in found['users']])
  share = round(100 * found['landing']['10'] / found['lists'])
  assert page.locator('#item-figures dd').all_inner_texts() == [
      f'{share} %',
      '100 %',
  ]
  place = found['users'][0]['place']
  first = page.locator('#item-list li').first.inner_text()
  assert f'place {place} of their list' in first
  page.fill('#item-id', 'brand-new')
  page.click('#item-form >> text="Add it"')
  page.wait_for_selector('text=brand-new is in the catalogue')
  picture = page.screenshot(path=tmp_path / 'item.png', full_page=True)
  assert len(picture) > 20_000
  page.click('#tab-lists')
  page.fill('#lists-user', found['users'][0]['id'])
  page.fill('#lists-k', '50')
  page.click('text=Show the list')
  fresh = page.locator('#lists-list li.fresh .name')
  fresh.wait_for()
  assert fresh.all_inner_texts() == ['brand-new']
  assert _names(page, '#lists-list')[place - 1] == 'brand-new'
  page.click('#tab-item')
  page.click('#item-remove')
  page.wait_for_selector('text=brand-new is gone')
  assert 'brand-new' not in running.lists({})[0]


def test_a_user_warms_up(page, running, tmp_path):
  page.click('#tab-warm')
  page.fill('#warm-user', 'u2')
  page.press('#warm-user', 'Enter')
  ask = lambda n: running.post('/page/warm_up', user='u2', revealed=n, k=10)
  listed = lambda found: [item['id'] for item in found['items']]
  _wait(lambda: _names(page, '#warm-list'), listed(ask(0)))
  assert page.inner_text('#warm-history') == 'nothing yet'
  page.focus('#warm-slider')
  for n in range(1, 4):
    page.keyboard.press('ArrowRight')
    found = ask(n)
    _wait(lambda: _names(page, '#warm-list'), listed(found))
  shown = page.locator('#warm-history li').all_inner_texts()
  assert shown == [item['id'] for item in found['revealed']]
  assert page.inner_text('#warm-shown') == '3'
  assert page.locator('#warm-list li.hit').count() == found['hits'] > 0
  message = page.inner_text('#warm-message')
  assert message.startswith(f'{found["hits"]} of the {found["hidden"]} items')
  assert page.locator('svg.curve circle').count() == 4
  picture = page.screenshot(path=tmp_path / 'warm.png', full_page=True)
  assert len(picture) > 20_000


def test_all_of_it_without_a_mouse(page, running):
  page.keyboard.press('Tab')
  assert page.evaluate('document.activeElement.className') == 'skip'
  _press_until(page, 'Tab', '#tab-lists')
  _press_until(page, 'Tab', '#lists-user')
  page.keyboard.press('Control+a')
  page.keyboard.type('u5')
  page.keyboard.press('Enter')
  wanted = running.lists({'id': 'u5'}, k=10)[0]
  _wait(lambda: _names(page, '#lists-list'), wanted)
  _press_until(page, 'Shift+Tab', '#tab-lists')
  page.keyboard.press('ArrowRight')
  assert page.get_attribute('#tab-item', 'aria-selected') == 'true'
  assert page.is_hidden('#lists') and page.is_visible('#item')
  _press_until(page, 'Tab', '#chips-tags')
  page.keyboard.type('word2')  # which is one that training knew
  chips = page.locator('#item-columns .chips')
  _wait(chips.inner_text, 'word2')
  page.keyboard.type('wholly new')
  page.keyboard.press('Enter')
  assert chips.locator('button').all_inner_texts() == ['word2', 'wholly new']
  _press_until(page, 'Tab', '#item-columns .chips button >> nth=1')
  page.keyboard.press('Enter')  # which removes it
  assert chips.locator('button').all_inner_texts() == ['word2']
  found = running.post('/page/audience', content={'tags': ['word2']}, k=10)
  _wait(lambda: _names(page, '#item-list'), [x['id'] for x in found['users']])
  _press_until(page, 'Shift+Tab', '#tab-item')
  page.keyboard.press('End')
  assert page.is_visible('#warm')
  _press_until(page, 'Tab', '#warm-slider')
  page.keyboard.press('ArrowRight')
  _wait(lambda: page.inner_text('#warm-shown'), '1')


def test_everything_has_a_name_and_can_be_reached(page):
  for tab in ('#tab-lists', '#tab-item', '#tab-warm'):
    page.click(tab)
    nameless = page.evaluate("""() =>
      [...document.querySelectorAll('input, select, textarea, button, svg')]
        .filter((e) => e.checkVisibility())
        .filter((e) => !(e.labels && e.labels.length &&
          e.labels[0].textContent.trim()) && !e.getAttribute('aria-label') &&
          !(e.tagName === 'BUTTON' && e.textContent.trim()))
        .map((e) => e.outerHTML)""")
    assert not nameless
  assert page.get_by_role('tabpanel').count() == 1
  assert page.get_by_role('status').count() >= 1
  assert page.get_by_role('list', name='The list').count() == 1


def test_light_and_dark(page):
  paper = lambda: page.evaluate(
      'getComputedStyle(document.body).backgroundColor'
  )
  light = paper()
  page.emulate_media(color_scheme='dark')
  dark = paper()
  assert light != dark
  page.select_option('#theme', 'light')
  assert paper() == light
  page.reload()
  assert page.input_value('#theme') == 'light' and paper() == light


def test_mistakes_are_told_and_nothing_breaks(page):
  page.fill('#lists-user', 'u7')
  page.check('text=somebody new')
  page.fill('#chips-items', 'nothing-like-that,')
  with page.expect_response('**/recommend') as answer:
    page.click('text=Show the list')
  assert answer.value.status == 404
  page.wait_for_selector("text=Item 'nothing-like-that' is not known")
  page.click('[aria-label="remove nothing-like-that"]')
  page.click('text=Show the list')
  page.wait_for_selector('#lists-list li')


def test_with_a_key(browser, start, tmp_path):
  with (
      start(tmp_path / 'state.sqlite') as running,
      _listening(running.service, 'secret') as base,
  ):
    page = browser.new_page()
    page.goto(base)
    page.wait_for_selector('text=This service wants its key')
    page.fill('#key', 'secret')
    page.press('#key', 'Enter')
    page.wait_for_selector('#lists-list li')
    page.close()
