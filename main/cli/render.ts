/** `vmoba-studio render`: a prompt through the studio's queue, or straight to a file; or an interrupted render; or many prompts. */
import { Command } from 'commander';
import { StudioError } from '../../contract/errors.ts';
import { clipFormats } from '../studio/encode/formats.ts';
import { type BatchFlags, renderBatch } from './batch.ts';
import { renderInStudio, type StudioRenderFlags } from './renderInStudio.ts';
import { namesFolder } from './renderOptions.ts';
import { type FileFlags, renderToFile } from './renderToFile.ts';
import { connectOption, libraryOption } from './studioSession.ts';

type Flags = StudioRenderFlags & FileFlags & Partial<BatchFlags>;

export function renderCommand(): Command {
  return new Command('render')
    .description('Render a prompt to a video file')
    .argument('[prompt]')
    .option(
      '--model <model>',
      'id of an installed model (default: nano), or a folder with model.json, which renders straight to a file',
    )
    .addOption(connectOption())
    .addOption(libraryOption())
    .option('--next', 'before everything else that waits')
    .option('--draft', 'mark it as a draft')
    .option('--project <id>', 'project that gets the take')
    .option('--detach', 'only put it into the queue')
    .option('--out <file>', 'where the clip goes (default: the library alone; from a folder: renders/<prompt>-<seed>)')
    .option('--format <format>', `${clipFormats.join(', ')} (default: by the ending of --out, or mp4)`)
    .option('--crf <n>', 'constant rate factor of the video encoder; lower is better and larger')
    .option('--negative <prompt>', 'what the clip should not show')
    .option('--size <WxH>', 'pixels')
    .option('--frames <n>', '4k+1')
    .option('--fps <n>', 'frames per second of the file')
    .option('--steps <n>', 'denoising steps')
    .option('--guidance <n>', 'guidance scale; 1 renders unguided and twice as fast')
    .option('--shift <n>', 'timestep shift')
    .option('--scheduler <name>', 'unipc, dpmpp or euler')
    .option('--seed <n>', 'unsigned 64-bit (default: random)')
    .option(
      '--policy <policy>',
      'attention: model, dense, vmoba-training-free, vmoba-trained, JSON, or a file with JSON',
    )
    .option('--precision <p>', 'auto, f32 or bf16')
    .option('--device <id>', 'see vmoba-studio devices')
    .option('--threads <n>', '0 = all cores')
    .option('--memory-limit <size>', 'refuse a render that needs more, e.g. 12GB')
    .option('--run-anyway', 'render although the plan exceeds the limit')
    .option('--resume <job>', 'continue an interrupted render from a model folder: its job folder or checkpoint')
    .option('--checkpoint-every <seconds>', 'from a model folder: shortest time between two checkpoints', '5')
    .option(
      '--batch <file>',
      'render every line of a JSONL file: {"id", "prompt", …}; see the documentation of each option',
    )
    .option('--out-dir <folder>', 'where the clips of a batch go')
    .option('--raw', 'batch: write RGB24 frames as they are, DIR/<id>.rgb')
    .option('--json', 'print JSON lines')
    .action((prompt: string | undefined, flags: Flags) => {
      const { batch, resume, model, connect } = flags;
      const beside = batch !== undefined || resume !== undefined || (model !== undefined && namesFolder(model));
      if (!beside) return renderInStudio(prompt, flags);
      if (connect !== undefined) refuseConnection(flags);
      return batch === undefined ? renderToFile(prompt, flags) : renderBatch({ ...flags, batch });
    });
}

function refuseConnection({ batch, resume }: Flags): never {
  const message =
    batch !== undefined || resume !== undefined
      ? 'A batch or a job is rendered here, not by a studio: leave --connect away.'
      : 'A studio renders installed models: add the folder with vmoba-studio models import, then give its id.';
  throw new StudioError('bad-request', message, { field: 'connect' });
}
