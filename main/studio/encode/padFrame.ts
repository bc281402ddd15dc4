/** Repeats the last column and row of an RGB24 picture until it has the wanted size. Returns the input where it fits already. */
export function padFrame(rgb: Uint8Array, width: number, height: number, toWidth: number, toHeight: number): Buffer {
  const source = Buffer.from(rgb.buffer, rgb.byteOffset, rgb.byteLength);
  if (width === toWidth && height === toHeight) return source;
  const padded = Buffer.alloc(toWidth * toHeight * 3);
  for (let row = 0; row < toHeight; row++) {
    const from = Math.min(row, height - 1) * width * 3;
    const to = row * toWidth * 3;
    source.copy(padded, to, from, from + width * 3);
    for (let column = width; column < toWidth; column++)
      source.copy(padded, to + column * 3, from + (width - 1) * 3, from + width * 3);
  }
  return padded;
}
