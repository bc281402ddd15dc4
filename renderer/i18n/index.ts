/** The texts of the interface. Another language is another module of the same shape. */
export { explain } from './explain.ts';
export { english as text } from './en.ts';
export * as show from './format.ts';
