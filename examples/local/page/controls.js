import { byId, count, make, setText } from './dom.js';
import { prepare } from './draw.js';
import { drawShape, reasonOf, REASONS } from './reasons.js';
import { stamp } from './time.js';

const THEMES = ['auto', 'light', 'dark'];
const THEME_KEY = 'session-tracking-theme';
/** A swatch of the legend, in pixels. */
const SWATCH = 14;

/** The controls above the timelines. */
export class Controls {
  constructor(host) {
    this.host = host;
    const { filter } = host;
    this.#field('search', 'input', (value) => { filter.text = value; });
    this.#field('project', 'change', (value) => { filter.project = value === '*' ? null : value.slice(1); });
    this.#field('marked', 'change', (value) => { filter.marked = value; });
    this.#field('order', 'change', (value) => { filter.order = value; });
    byId('range').addEventListener('change', (event) => host.setRange(event.target.value));
    byId('zoom-in').addEventListener('click', () => host.zoom(1 / 1.6));
    byId('zoom-out').addEventListener('click', () => host.zoom(1.6));
    this.#theme();
    this.#legend();
  }

  /** Shows what there is to choose from. */
  show(model, palette) {
    this.#projects(model.projects);
    for (const [name, { item, count: number }] of this.legend) {
      const sessions = model.reasons.get(name === 'unknown' ? undefined : name) ?? 0;
      item.hidden = sessions === 0;
      setText(number, count(sessions));
    }
    if (this.palette !== palette) this.#swatches(palette);
  }

  /** Shows every visitor again. */
  clear() {
    const { filter } = this.host;
    Object.assign(filter, { text: '', project: null, marked: 'any' });
    filter.hidden.clear();
    for (const [id, value] of [['search', ''], ['project', '*'], ['marked', 'any']]) byId(id).value = value;
    for (const button of byId('legend').querySelectorAll('button')) button.setAttribute('aria-pressed', 'true');
  }

  /** Shows which part of time is visible. */
  showRange(range) {
    byId('range').value = String(range.mode);
  }

  #field(id, kind, set) {
    byId(id).addEventListener(kind, (event) => {
      set(event.target.value);
      this.host.refilter();
    });
  }

  #projects(projects) {
    if (this.projects === projects.size) return;
    this.projects = projects.size;
    byId('project-field').hidden = projects.size < 2;
    const option = (value, label) => make('option', { value }, label);
    // A mark before the name tells a project of no name from all of them.
    const options = [...projects].sort().map((name) => option(`=${name}`, name || '(no project)'));
    const { project } = this.host.filter;
    byId('project').replaceChildren(option('*', 'all projects'), ...options);
    byId('project').value = project === null ? '*' : `=${project}`;
  }

  #legend() {
    const { filter } = this.host;
    const entries = [...REASONS, reasonOf(undefined)].map(({ name, label, about }) => {
      const swatch = make('canvas', { 'aria-hidden': 'true' });
      const number = make('span', { class: 'number' });
      const button = make('button', { type: 'button', 'aria-pressed': 'true', title: about }, swatch, label, ' ', number);
      const item = make('li', { hidden: true }, button);
      button.addEventListener('click', () => {
        const reason = name === 'unknown' ? undefined : name;
        const isShown = filter.hidden.delete(reason);
        if (!isShown) filter.hidden.add(reason);
        button.setAttribute('aria-pressed', isShown);
        this.host.refilter();
      });
      return [name, { item, swatch, count: number }];
    });
    this.legend = new Map(entries);
    byId('legend').prepend(...entries.map(([, { item }]) => item));
  }

  #swatches(palette) {
    this.palette = palette;
    for (const [name, { swatch }] of this.legend) {
      const context = prepare(swatch, SWATCH, SWATCH);
      context.fillStyle = palette[name];
      drawShape(context, reasonOf(name).shape, SWATCH / 2, SWATCH / 2, 10);
    }
  }

  #theme() {
    const button = byId('theme');
    const set = (theme) => {
      document.documentElement.dataset.theme = theme;
      setText(button, `Theme: ${theme}`);
      this.host.repaint();
    };
    set(remembered() ?? 'auto');
    button.addEventListener('click', () => {
      const next = THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % THEMES.length];
      remember(next);
      set(next);
    });
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.host.repaint());
  }
}

/** A page in a file, or a browser that keeps nothing, may refuse its storage. */
function remembered() {
  try {
    const theme = localStorage.getItem(THEME_KEY);
    return THEMES.includes(theme) ? theme : null;
  } catch {
    return null;
  }
}

function remember(theme) {
  try {
    localStorage.setItem(THEME_KEY, theme);
  } catch {
    // The theme holds until the page is closed.
  }
}

/** Time travel: sample traffic, and time that runs faster. */
export class TimeTravel {
  constructor() {
    byId('time-travel').hidden = false;
    byId('traffic').addEventListener('click', () => this.#post('/_page/traffic', {}));
    for (const input of document.querySelectorAll('input[name=speed]')) {
      input.addEventListener('change', () => this.#post('/_page/clock', { speed: Number(input.value) }));
    }
  }

  show(now, speed) {
    setText(byId('service-time'), stamp(now));
    const input = document.querySelector(`input[name=speed][value="${Number(speed)}"]`);
    if (input && !input.checked) input.checked = true;
  }

  async #post(path, body) {
    const answer = await fetch(path, { method: 'POST', body: JSON.stringify(body) }).then((response) => response.json(),
      () => ({ error: { message: 'the service does not answer' } }));
    setText(byId('travel-note'), answer.error?.message ?? (answer.events ? `${count(answer.events)} events are on their way` : ''));
  }
}
