/** Imported first: the content security policy forbids compiling schemas at run time, and asking would be reported. */
import { config } from 'zod';

config({ jitless: true });
