'use strict';
(() => {
  const all = (selector, within = document) => Array.from(within.querySelectorAll(selector));

  // What is pointed at tells its figures.
  const tip = document.getElementById('tip');
  const place = (x, y) => {
    const { width, height } = tip.getBoundingClientRect();
    const left = x + 16 + width > innerWidth ? x - 12 - width : x + 16;
    const top = y + 16 + height > innerHeight ? y - 12 - height : y + 16;
    tip.style.transform = `translate(${Math.max(4, left)}px, ${Math.max(4, top)}px)`;
  };
  const show = (target, x, y) => {
    const said = target && target.closest ? target.closest('[data-tip]') : null;
    tip.style.visibility = said ? 'visible' : 'hidden';
    if (said) {
      if (tip.textContent !== said.dataset.tip) tip.textContent = said.dataset.tip;
      place(x, y);
    }
  };
  document.addEventListener('pointermove', (event) => show(event.target, event.clientX, event.clientY));
  document.addEventListener('pointerdown', (event) => show(event.target, event.clientX, event.clientY));
  document.addEventListener('pointerleave', () => show(null));
  addEventListener('scroll', () => show(null), { passive: true });
  document.addEventListener('focusin', (event) => {
    const box = event.target.getBoundingClientRect();
    show(event.target, box.left, box.bottom);
  });
  document.addEventListener('keydown', (event) => { if (event.key === 'Escape') show(null); });

  // Bars close up where drivers are filtered away.
  const height = (group) => Number(/translate\(0 ([\d.]+)\)/.exec(group.getAttribute('transform'))[1]);
  const charts = all('svg').filter((svg) => svg.querySelector('.rows-axis')).map((svg) => {
    const rows = all('.row', svg);
    const axis = svg.querySelector('.rows-axis');
    const [bottom, top] = [height(axis), height(rows[0])];
    const box = svg.viewBox.baseVal;
    return {
      svg, rows, axis, top, width: box.width, foot: box.height - bottom,
      step: (bottom - top) / rows.length, grid: all('.rows-grid line', svg),
    };
  });
  const stack = ({ svg, rows, axis, top, width, foot, step, grid }) => {
    let y = top;
    for (const row of rows) {
      if (row.classList.contains('off')) continue;
      row.setAttribute('transform', `translate(0 ${y})`);
      y += step;
    }
    axis.setAttribute('transform', `translate(0 ${y})`);
    for (const line of grid) line.setAttribute('y2', y);
    svg.setAttribute('viewBox', `0 0 ${width} ${y + foot}`);
  };

  // Filters.
  const chips = all('[data-toggle]');
  const apply = () => {
    for (const chip of chips) {
      const off = chip.getAttribute('aria-pressed') === 'false';
      for (const part of all(`[data-driver="${chip.dataset.toggle}"]`)) part.classList.toggle('off', off);
    }
    charts.forEach(stack);
  };
  for (const chip of chips) {
    chip.addEventListener('click', (event) => {
      if (event.altKey || event.shiftKey) {
        for (const other of chips) other.setAttribute('aria-pressed', String(other === chip));
      } else {
        chip.setAttribute('aria-pressed', String(chip.getAttribute('aria-pressed') === 'false'));
      }
      apply();
    });
  }
  const every = document.getElementById('every');
  if (every) {
    every.addEventListener('click', () => {
      for (const chip of chips) chip.setAttribute('aria-pressed', 'true');
      apply();
    });
  }
  const chosen = document.getElementById('chosen');
  if (chosen) {
    chosen.addEventListener('change', () => {
      for (const part of all('[data-workload]')) {
        part.classList.toggle('off', chosen.value !== '' && part.dataset.workload !== chosen.value);
      }
      for (const group of all('[data-group]')) {
        group.classList.toggle('off', !group.querySelector('[data-workload]:not(.off)'));
      }
    });
    chosen.dispatchEvent(new Event('change'));
  }

  // Tables are sorted by the column whose heading is clicked; once more turns it round, a third time undoes it.
  const key = (cell) => {
    if (!cell || (cell.dataset.value === undefined && cell.textContent.trim() === '')) return null;
    return cell.dataset.value === undefined ? cell.textContent.trim() : Number(cell.dataset.value);
  };
  const compare = (first, second) => {
    if (typeof first === 'number' && typeof second === 'number') return first - second;
    if (typeof first !== typeof second) return typeof first === 'number' ? -1 : 1;
    return first.localeCompare(second, 'en', { numeric: true });
  };
  for (const table of all('table.sortable')) {
    const body = table.tBodies[0];
    const original = Array.from(body.rows);
    const headings = Array.from(table.tHead.rows[0].cells);
    headings.forEach((heading, column) => {
      const button = heading.querySelector('button');
      if (!button) return;
      button.addEventListener('click', () => {
        const before = heading.getAttribute('aria-sort');
        const next = before === null ? 'descending' : before === 'descending' ? 'ascending' : null;
        for (const other of headings) other.removeAttribute('aria-sort');
        if (next === null) { body.append(...original); return; }
        heading.setAttribute('aria-sort', next);
        const sign = next === 'ascending' ? 1 : -1;
        const keyed = original.map((row) => [key(row.cells[column]), row]);
        // What has no value stays at the end, whichever way.
        keyed.sort(([first], [second]) => (first === null) - (second === null)
          || (first === null ? 0 : sign * compare(first, second)));
        body.append(...keyed.map(([, row]) => row));
      });
    });
  }

  // Another driver to compare with: figures stand in its column, and the ratios to it in all others.
  const reference = document.getElementById('reference');
  const data = document.getElementById('references');
  if (reference && data) {
    const { drivers, cells, ratios } = JSON.parse(data.textContent);
    const overview = document.getElementById('overview');
    const table = overview.querySelector('table.heat');
    // In the order of the data, whatever they are sorted by later.
    const lines = Array.from(table.tBodies[0].rows);
    const words = ['better', 'no difference', 'worse'];
    const fill = (cell, figure, ratio, own) => {
      if (!figure) return;
      const [shown, value] = ratio || figure;
      cell.textContent = shown;
      cell.className = ratio ? `cell b${ratio[2]}` : own ? 'figure' : 'none';
      cell.dataset.value = value;
      cell.dataset.tip = ratio ? `${figure[2]}\n${ratio[4]}` : figure[2];
    };
    const compareWith = (number) => {
      const counts = drivers.map(() => [0, 0, 0]);
      lines.forEach((line, row) => {
        for (const cell of all('[data-driver]', line)) {
          const driver = Number(cell.dataset.driver);
          const ratio = ratios[row][number][driver];
          if (ratio) counts[driver][ratio[3]] += 1;
          const off = cell.classList.contains('off');
          fill(cell, cells[row][driver], ratio, driver === number);
          cell.classList.toggle('off', off);
        }
      });
      for (const part of all('.score > [data-driver]', overview)) {
        const driver = Number(part.dataset.driver);
        const sums = counts[driver];
        part.hidden = sums.every((sum) => sum === 0);
        if (!part.classList.contains('stack')) continue;
        part.setAttribute('aria-label',
          `${drivers[driver]}: ${words.map((word, place) => `${word} in ${sums[place]}`).join(', ')}`);
        Array.from(part.children).forEach((bar, place) => {
          bar.hidden = sums[place] === 0;
          bar.style.flex = `${sums[place]} 1 0`;
          bar.textContent = sums[place];
          bar.dataset.tip = `${drivers[driver]}\n${words[place]} in ${sums[place]}`;
        });
      }
      for (const name of all('[data-reference]')) name.textContent = drivers[number];
      table.setAttribute('aria-label', `Ratios to ${drivers[number]}`);
      // What it was sorted by is no more.
      for (const heading of table.tHead.rows[0].cells) heading.removeAttribute('aria-sort');
      table.tBodies[0].append(...lines);
    };
    reference.addEventListener('change', () => compareWith(Number(reference.value)));
  }
  document.documentElement.dataset.ready = 'yes';
})();
