/** The page as the app has it: styles, and no schema compiled at run time. */
import '../../../renderer/noEval.ts';
import '../../../renderer/styles/base.css';
import { beforeEach } from 'vitest';
import { userEvent } from 'vitest/browser';
import { closeStudios } from './studio.ts';

beforeEach(async () => {
  closeStudios();
  await userEvent.cleanup();
});
