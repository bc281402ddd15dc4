/** Pictures to encode, and looking at files with the system's FFmpeg. */
import { spawnSync } from 'node:child_process';

/** Coloured moving gradients: RGB24 frames with saturated colours in them, where wrong matrices show. */
export function testFrames(width: number, height: number, count: number): Uint8Array {
  const rgb = new Uint8Array(count * width * height * 3);
  let at = 0;
  for (let frame = 0; frame < count; frame++) {
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        rgb[at++] = Math.round((255 * x) / (width - 1));
        rgb[at++] = Math.round((255 * y) / (height - 1));
        rgb[at++] = Math.round(127 + 127 * Math.sin(frame / 3 + x / 17));
      }
    }
  }
  return rgb;
}

function run(command: string, args: string[]): Buffer {
  const result = spawnSync(command, args, { maxBuffer: 1 << 28 });
  if (result.status !== 0) throw new Error(`${command} ${args.join(' ')}: ${result.stderr.toString()}`);
  return result.stdout;
}

export interface ProbedStream {
  codec_name: string;
  width: number;
  height: number;
  pix_fmt: string;
  color_range?: string;
  color_space?: string;
  color_transfer?: string;
  color_primaries?: string;
  r_frame_rate: string;
  nb_read_frames: string;
}

/** The video stream as ffprobe sees it, every frame decoded and counted. */
export function probe(path: string): ProbedStream {
  const args = ['-v', 'error', '-count_frames', '-show_streams', '-select_streams', 'v', '-of', 'json', path];
  return (JSON.parse(run('ffprobe', args).toString()) as { streams: ProbedStream[] }).streams[0] as ProbedStream;
}

/** All frames as RGB24. */
export function decode(path: string): Uint8Array {
  return run('ffmpeg', ['-v', 'error', '-i', path, '-f', 'rawvideo', '-pix_fmt', 'rgb24', '-']);
}

/** `ffmpeg -c copy` into another file. */
export function remux(from: string, to: string): void {
  run('ffmpeg', ['-v', 'error', '-y', '-i', from, '-c', 'copy', to]);
}

/** Peak signal-to-noise ratio in decibels. */
export function psnr(a: Uint8Array, b: Uint8Array): number {
  if (a.length !== b.length) throw new Error(`${a.length} bytes against ${b.length}`);
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += ((a[i] as number) - (b[i] as number)) ** 2;
  return 10 * Math.log10(255 ** 2 / (sum / a.length));
}
