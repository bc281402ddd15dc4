/** Whether a person without a mouse gets everywhere. */
import type { Page } from '@playwright/test';

/** In the page: notes what gets the focus, and whether the round is complete. */
const watchFocus = `{
  const visited = new Set();
  const round = (window.focusRound = { visited, complete: false });
  addEventListener('focusin', ({ target }) => {
    if (visited.size > 1 && target === [...visited][0]) round.complete = true;
    visited.add(target);
  });
  document.activeElement?.blur();
}`;

/** In the page: controls that had no focus and are in no group of which one had it (there, arrow keys do the rest). */
const notVisited = `[...document.querySelectorAll('button, a[href], input, textarea, select, summary, [role=slider]')]
  .filter((control) => control.checkVisibility({ visibilityProperty: true }))
  .filter((control) => !control.matches(':disabled, [aria-hidden=true]'))
  .filter((control) => {
    const group = control.tabIndex < 0 ? control.parentElement : control.closest('[role=radiogroup], [role=listbox]');
    return ![...window.focusRound.visited].some((one) => one === control || group?.contains(one));
  })
  .map((control) => control.outerHTML.slice(0, 160))`;

/** Presses Tab all the way round, and returns the controls it never came to. */
export async function unreachedByTab(page: Page): Promise<string[]> {
  await page.evaluate(watchFocus);
  for (let presses = 1; presses <= 200; presses++) {
    await page.keyboard.press('Tab');
    if (presses % 10 === 0 && (await page.evaluate('window.focusRound.complete'))) break;
  }
  return page.evaluate(notVisited);
}
