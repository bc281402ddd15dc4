/** Frame rates as exact fractions. */

/** A frame rate as numerator and denominator: 24 → 24/1, 23.976 → 24000/1001. */
export function frameRateFraction(fps: number): { num: number; den: number } {
  const whole = Math.round(fps);
  if (Math.abs(fps - whole) < 1e-9) return { num: whole, den: 1 };
  // Broadcast rates are whole numbers divided by 1.001.
  const broadcast = Math.round(fps * 1.001);
  if (Math.abs(fps - broadcast / 1.001) < 1e-3) return { num: broadcast * 1000, den: 1001 };
  return { num: Math.round(fps * 1000), den: 1000 };
}
