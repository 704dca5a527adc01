// Downloads of what is shown.

import { $, make, monthName } from './dom.js';
import { query, save, saveBlob } from './api.js';

export class FilesPane {
  constructor(state, sides, map, { swipe, filter }) {
    Object.assign(this, { state, sides, map, swipe, filter });
    state.on(['tab', 'layer', 'month', 'image', 'pixel', 'stage', 'confidence', 'since', 'until', 'min_area_m2'], () => this.draw());
    this.draw();
  }

  draw() {
    const { values } = this.state;
    if (values.tab !== 'files') return;
    const choice = this.sides.of(values, 'left');
    const box = () => query(this.map.box);
    const rows = [];
    if (choice.layer === 'month' && choice.month) rows.push(...this.raster(`Score, ${monthName(choice.month)}`, `/download/month/${choice.month}.tif`, box));
    else if (this.sides.map(choice)) rows.push(...this.raster(this.sides.map(choice).title, `/download/map/${choice.layer}.tif`, box));
    const image = this.sides.acquisition(choice);
    if (image) rows.push(...this.raster(this.sides.imageTitle(choice).replace(/,[^,]*$/, ''), `/download/image/${this.sides.area.optical}/${image.moment}.tif`, box));
    rows.push(this.row('Events that the filter keeps', [
      ['GeoJSON', () => save(`/api/events.geojson${query(this.filter())}`)],
      ['CSV', () => save(`/download/events.csv${query(this.filter())}`)],
    ]));
    if (values.pixel) {
      const [longitude, latitude] = values.pixel.split(',');
      rows.push(this.row('History of the pixel', [['CSV', () => save(`/download/pixel.csv${query({ longitude, latitude })}`)]]));
    }
    rows.push(this.row('The map as a picture', [['PNG', () => this.picture()]]));
    $('files').replaceChildren(...rows);
  }

  raster(title, path, box) {
    return [this.row(title, [
      ['GeoTIFF of the view', () => save(path + box())],
      ['GeoTIFF of all', () => save(path)],
    ])];
  }

  row(title, choices) {
    const buttons = choices.map(([name, get]) => {
      const button = make('button', { type: 'button', class: 'plain', text: name, 'aria-label': `${title}: ${name}` });
      button.addEventListener('click', async () => {
        button.disabled = true;
        $('file-status').textContent = `${title}: making the file …`;
        try {
          await get();
          $('file-status').textContent = `${title}: ${name} saved.`;
        } catch (error) {
          $('file-status').textContent = `${title}: not saved, ${error.message}.`;
        }
        button.disabled = false;
        button.focus();
      });
      return button;
    });
    return make('li', {}, make('span', { text: title }), make('span', { class: 'row' }, ...buttons));
  }

  /** What the map shows, with a line that says what that is. */
  async picture() {
    const { values } = this.state;
    const left = await this.map.picture();
    const scale = left.width / $('map-left').clientWidth;
    const foot = Math.round(64 * scale);
    const canvas = document.createElement('canvas');
    [canvas.width, canvas.height] = [left.width, left.height + foot];
    const pen = canvas.getContext('2d');
    pen.drawImage(left, 0, 0);
    const right = values.swipe ? await this.swipe().right?.picture() : null;
    if (right) {
      const cut = Math.round((left.width * values.cut) / 100);
      pen.drawImage(right, cut, 0, right.width - cut, right.height, cut, 0, right.width - cut, right.height);
      pen.fillStyle = '#fff';
      pen.fillRect(cut - scale, 0, 2 * scale, left.height);
    }
    pen.fillStyle = '#fff';
    pen.fillRect(0, left.height, canvas.width, foot);
    pen.fillStyle = '#1c2226';
    pen.font = `600 ${14 * scale}px system-ui, sans-serif`;
    const says = (side) => [this.sides.layerTitle(this.sides.of(values, side)), this.sides.imageTitle(this.sides.of(values, side))].filter(Boolean).join('; ');
    pen.fillText(`${this.sides.area.name}: ${says('left')}`, 12 * scale, left.height + 22 * scale, canvas.width - 24 * scale);
    pen.font = `${12 * scale}px system-ui, sans-serif`;
    if (right) pen.fillText(`Right: ${says('right')}`, 12 * scale, left.height + 40 * scale, canvas.width - 24 * scale);
    if (values.layer === 'month' || values.layer === 'score') {
      const colours = this.sides.area.legends[values.colours];
      colours.forEach((one, k) => {
        pen.fillStyle = one;
        pen.fillRect(12 * scale + (k * 160 * scale) / colours.length, left.height + 46 * scale, (160 * scale) / colours.length + 1, 9 * scale);
      });
      pen.fillStyle = '#1c2226';
      pen.fillText('score 0 to 1', 182 * scale, left.height + 55 * scale);
    }
    const classes = this.sides.map(this.sides.of(values, 'left'))?.classes ?? [];
    classes.forEach(({ title, colour }, k) => {
      const [step, at] = [(canvas.width - 24 * scale) / classes.length, left.height + 46 * scale];
      pen.fillStyle = colour;
      pen.fillRect(12 * scale + k * step, at, 10 * scale, 9 * scale);
      pen.fillStyle = '#1c2226';
      pen.fillText(title, 26 * scale + k * step, at + 9 * scale, step - 20 * scale);
    });
    const blob = await new Promise((done) => canvas.toBlob(done, 'image/png'));
    saveBlob(blob, `${this.sides.area.name}_${values.month || 'map'}.png`);
  }
}
