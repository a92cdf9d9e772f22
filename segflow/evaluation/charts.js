/*
 * Makes the charts of a page interactive: each ".plot" holds a drawing and, as JSON, the data that it was drawn from.
 * The same data are drawn by Vega in the place of the drawing. Where that fails, the drawing stays.
 *
 * What lives here: size, tooltips, keyboard, order, zoom, and which kinds of rows are shown. What does not: how a form of
 * chart looks (*.vega.json), and any figure. Colours are the page's CSS variables, so they follow light and dark by themselves.
 */
(() => {
  'use strict';

  const forms = JSON.parse(document.getElementById('chart-forms').textContent);
  const widest = 940;

  const element = (tag, attributes = {}, ...children) => {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  };

  /** The Vega specification of a chart's data, for a width in pixels. */
  const specified = (data, width) => {
    const spec = structuredClone(forms[data.form]);
    const signals = data.form === 'curve'
      ? { across: data.across, up: data.up, names: data.axes }
      : { axis: data.axis };
    for (const [name, value] of Object.entries({ ...signals, width }))
      spec.signals.find(one => one.name === name).value = value;
    const values = { shown: data.rows ?? data.points, lines: data.lines };
    for (const one of spec.data)
      one.values = values[one.name].map((row, id) => ({ ...row, id }));
    spec.description = data.title;
    spec.config = { font: getComputedStyle(document.body).fontFamily };
    return spec;
  };

  /** What a tooltip tells of a row or a point: all of its figures. */
  const told = datum => {
    if (!datum.facts) return [element('span', {}, datum.text)];
    const facts = datum.facts.map(([name, text]) => element('div', {}, element('dt', {}, name), element('dd', {}, text)));
    return [element('strong', {}, datum.label), element('span', {}, datum.text), element('dl', {}, ...facts)];
  };

  /** The row or point that an element answers for. Around a point it is all that is nearer to it than to any other. */
  const datumOf = pointed => pointed.__data__.datum.datum ?? pointed.__data__.datum;

  /** Where a row or a point is on the screen. */
  const placeOf = (pointed, canvas) => {
    const mark = pointed.__data__.datum;
    if (!mark.datum) return pointed.getBoundingClientRect();
    const { left, top } = canvas.getBoundingClientRect();
    return new DOMRect(left + mark.x - 8, top + mark.y - 8, 16, 16);
  };

  /** By keyboard: one stop of the tab key, arrows go from row to row, Escape closes. */
  const walk = (drawn, rows, pointedAt, hide) => drawn.addEventListener('keydown', event => {
    if (event.key === 'Escape') return hide();
    const row = pointedAt(event);
    if (!row) return undefined;
    const all = rows(), here = all.indexOf(row);
    const there = {
      ArrowDown: here + 1, ArrowRight: here + 1, ArrowUp: here - 1, ArrowLeft: here - 1, Home: 0, End: all.length - 1,
    }[event.key];
    if (there === undefined) return undefined;
    event.preventDefault();
    const next = all[Math.min(Math.max(there, 0), all.length - 1)];
    for (const one of all) one.setAttribute('tabindex', one === next ? 0 : -1);
    return next.focus();
  });

  /** Tooltips, by pointer and by focus. */
  const point = (view, drawn, tip) => {
    let active = null;
    const rank = row => datumOf(row).rank ?? datumOf(row).id;
    const rows = () => [...drawn.querySelectorAll('.pointed > path')].sort((a, b) => rank(a) - rank(b));
    const hide = () => {
      if (active === null) return;
      active = null;
      tip.hidden = true;
      view.signal('active', -1).runAsync();
    };
    const show = row => {
      const datum = datumOf(row);
      if (active !== datum.id) {
        active = datum.id;
        tip.replaceChildren(...told(datum));
        view.signal('active', datum.id).runAsync();
      }
      tip.hidden = false;
      const around = drawn.getBoundingClientRect(), box = placeOf(row, drawn.querySelector('.canvas'));
      const middle = box.left + box.width / 2 - tip.offsetWidth / 2;
      const left = Math.min(Math.max(middle, 4), document.documentElement.clientWidth - tip.offsetWidth - 4);
      const below = box.bottom + tip.offsetHeight + 8 < window.innerHeight || box.top < tip.offsetHeight + 8;
      tip.style.left = `${left - around.left}px`;
      tip.style.top = `${(below ? box.bottom + 4 : box.top - tip.offsetHeight - 4) - around.top}px`;
    };
    const ready = () => {
      const all = rows();
      const stop = all.find(row => row === document.activeElement) ?? all[0];
      for (const row of all) row.setAttribute('tabindex', row === stop ? 0 : -1);
    };
    const pointedAt = event => event.target.closest?.('.pointed > path');
    drawn.addEventListener('pointerover', event => (pointedAt(event) ? show(pointedAt(event)) : hide()));
    drawn.addEventListener('pointerleave', event => event.pointerType === 'mouse' && hide());
    drawn.addEventListener('focusin', event => pointedAt(event)?.matches(':focus-visible') && show(pointedAt(event)));
    drawn.addEventListener('focusout', hide);
    walk(drawn, rows, pointedAt, hide);
    document.addEventListener('pointerdown', event => drawn.contains(event.target) || hide());
    return { ready, hide };
  };

  /** Buttons that show and hide a kind of rows; the last one shown stays. `after` is called when rows have changed. */
  const legend = (view, plot, after) => {
    const list = element('ul', { class: 'legend', 'aria-label': 'Shown' });
    const hidden = new Set();
    const kinds = plot.querySelectorAll(':scope > .legend > li');
    for (const kind of kinds) {
      const button = element('button', { type: 'button', 'aria-pressed': 'true' }, kind.textContent);
      button.addEventListener('click', () => {
        const name = kind.dataset.kind;
        if (!hidden.delete(name) && hidden.size + 1 < kinds.length) hidden.add(name);
        button.setAttribute('aria-pressed', String(!hidden.has(name)));
        view.signal('hidden', [...hidden]).runAsync().then(after);
      });
      list.append(element('li', { class: kind.className }, button));
    }
    return kinds.length ? [list] : [];
  };

  /** Which row stands first. The order that was given is left out where it is that of the values. */
  const order = (view, data, after) => {
    if (data.rows.length < 3) return [];
    const falling = data.rows.every((row, i) => !i || row.mean <= data.rows[i - 1].mean);
    const choices = [...(falling ? [] : [['given', 'as listed']]), ['value', 'by value'], ['name', 'by name']];
    const select = element('select', {}, ...choices.map(([value, text]) => element('option', { value }, text)));
    select.addEventListener('change', () => view.signal('order', select.value).runAsync().then(after));
    return [element('label', {}, 'Order ', select)];
  };

  /** Buttons to zoom the axis, dragging to move along it once it is zoomed, and its fit to the rows that are shown. */
  const zoom = (view, drawn, data, hide) => {
    let [low, high] = data.axis, axis = [low, high];
    const set = next => {
      hide();
      const size = Math.min(next[1] - next[0], high - low);
      const start = Math.min(Math.max(next[0], low), high - size);
      axis = [start, start + size];
      drawn.classList.toggle('zoomed', size < high - low);
      return view.signal('axis', axis).runAsync();
    };
    const scaled = factor => {
      const means = view.data('shown').map(row => row.mean).sort((a, b) => a - b);
      // The first step goes to where the rows are, the next ones to where one looks.
      const middle = drawn.classList.contains('zoomed') ? (axis[0] + axis[1]) / 2 : means[means.length >> 1];
      const half = (axis[1] - axis[0]) / 2 * factor;
      return set([middle - half, middle + half]);
    };
    const fit = () => {
      const shown = view.data('shown');
      [low, high] = data.axis;
      if (shown.length < data.rows.length) {
        const ends = [...shown.flatMap(row => [row.low, row.high]), ...data.lines.map(line => line.value)];
        const [first, last] = [Math.min(...ends), Math.max(...ends)], edge = (last - first || high - low) * 0.05;
        [low, high] = [first - edge, last + edge];
      }
      return set([low, high]);
    };
    const button = (name, text, action) => {
      const made = element('button', { type: 'button', 'aria-label': name, title: name }, text);
      made.addEventListener('click', action);
      return made;
    };
    const canvas = drawn.querySelector('.canvas');
    let held = null;
    canvas.addEventListener('pointerdown', event => {
      if (!drawn.classList.contains('zoomed')) return;
      held = { x: event.clientX, axis };
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener('pointermove', event => {
      if (!held) return;
      const pixels = view.signal('right') - view.signal('left');
      const moved = (held.x - event.clientX) / pixels * (held.axis[1] - held.axis[0]);
      set(held.axis.map(one => one + moved));
    });
    for (const end of ['pointerup', 'pointercancel']) canvas.addEventListener(end, () => { held = null; });
    const buttons = element('span', { class: 'zoom', role: 'group', 'aria-label': 'Zoom' },
      button('Zoom in', '+', () => scaled(0.5)),
      button('Zoom out', '−', () => scaled(2)),
      button('Whole axis', 'Reset', () => set([low, high])));
    return { buttons, fit };
  };

  const draw = async plot => {
    const data = JSON.parse(plot.querySelector('script').textContent);
    const canvas = element('div', { class: 'canvas' });
    const tools = element('div', { class: 'tools' });
    const tip = element('div', { class: 'tip', 'aria-hidden': 'true' });
    const drawn = element('div', { class: 'drawn' }, tools, canvas, tip);
    const room = () => Math.min(plot.clientWidth, widest);
    tip.hidden = true;
    plot.append(drawn);
    try {
      const { view } = await window.vegaEmbed(canvas, specified(data, room()), {
        mode: 'vega', renderer: 'svg', ast: true, actions: false, defaultStyle: false, tooltip: () => {},
      });
      const { ready, hide } = point(view, drawn, tip);
      if (data.form === 'intervals') {
        const { buttons, fit } = zoom(view, drawn, data, hide);
        tools.append(...legend(view, plot, () => fit().then(ready)), ...order(view, data, ready), buttons);
      }
      ready();
      plot.classList.add('interactive');
      new ResizeObserver(() => {
        if (room() > 0) view.signal('width', room()).runAsync().then(ready);
      }).observe(plot);
    } catch (error) {
      drawn.remove();
      throw error;
    }
  };

  for (const plot of document.querySelectorAll('.plot'))
    draw(plot).catch(error => console.info(`A chart stays as it was drawn: ${error.message}`));
})();
