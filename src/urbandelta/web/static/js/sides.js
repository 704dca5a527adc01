// What each side of the divider shows, and in which words.

import { dayName, monthName, option, shortDay } from './dom.js';

const CLEAR = 0.7;

export class Sides {
  constructor(area, acquisitions) {
    this.area = area;
    this.acquisitions = acquisitions; // oldest first
    this.clear = acquisitions.filter(({ valid }) => valid >= CLEAR);
  }

  /** A side's choices out of the page's state; the right one falls back to the left one's month. */
  of(values, side) {
    return side === 'left'
      ? { layer: values.layer, month: values.month, image: values.image }
      : { layer: values.layer2, month: values.month2 || values.month, image: values.image2 };
  }

  /** The acquisition that a side shows, or null. */
  acquisition({ image, month }) {
    if (image === 'none' || !this.acquisitions.length) return null;
    if (image !== 'near') return this.acquisitions.find(({ moment }) => moment === image) ?? null;
    const pool = this.clear.length ? this.clear : this.acquisitions;
    const middle = month ? Date.parse(`${month}-15T12:00:00Z`) : Date.parse(this.acquisitions.at(-1).time);
    const distance = ({ time }) => Math.abs(Date.parse(time) - middle);
    return pool.reduce((best, one) => (distance(one) < distance(best) ? one : best));
  }

  imageTiles(choice) {
    const found = this.acquisition(choice);
    if (!found) return null;
    return `/tiles/image/${this.area.optical}/${found.moment}/{z}/{x}/{y}.webp?v=${this.area.version}`;
  }

  /** Whether low scores let the image through. */
  fades(choice) {
    return this.acquisition(choice) !== null;
  }

  layerTiles(choice, colours) {
    if (choice.layer === 'none' || (choice.layer === 'month' && !choice.month)) return null;
    const style = `?colours=${colours}&fade=${this.fades(choice) ? 'yes' : 'no'}&v=${this.area.version}`;
    const path = choice.layer === 'month' ? `month/${choice.month}` : `map/${choice.layer}`;
    return `/tiles/${path}/{z}/{x}/{y}.png${style}`;
  }

  map(choice) {
    return this.area.maps.find(({ name }) => name === choice.layer) ?? null;
  }

  layerTitle(choice) {
    if (choice.layer === 'month') return choice.month ? `Score, ${monthName(choice.month)}` : 'No score yet';
    return this.map(choice)?.title ?? '';
  }

  imageTitle(choice) {
    const found = this.acquisition(choice);
    if (!found) return '';
    const platform = found.platform ? `, ${found.platform}` : '';
    return `True colour, ${dayName(found.time)}${platform}, ${Math.round(100 * found.valid)} % clear`;
  }

  layerOptions() {
    const months = this.area.months.length ? [option('month', 'Scores of the month')] : [];
    return [...months, ...this.area.maps.map(({ name, title }) => option(name, title)), option('none', 'None')];
  }

  imageOptions() {
    if (!this.acquisitions.length) return [option('none', 'None')];
    const each = this.acquisitions.toReversed().map(({ moment, time, valid }) =>
      option(moment, `${shortDay(time)}, ${Math.round(100 * valid)} % clear`));
    return [option('near', 'Clear one nearest to the month'), option('none', 'None'), ...each];
  }
}
