/** A parent to be killed: starts an engine in the middle of a hanging step and tells its pid. */
import { sessionRequest, startFaultyEngine } from './engine.ts';

const client = startFaultyEngine();
const session = await client.openSession(sessionRequest({ prompt: 'hang at 0' }), () => {});
void session.step().catch(() => {});
process.send?.(client.pid);
