/**
 * Frames of a clip file as RGB24, one after the other, through FFmpeg's libraries: what transcoding and posters start from.
 * The file may come from anywhere; only known containers on this disk are opened, and sizes are bounded.
 */
import {
  AV_LOG_QUIET,
  AV_PIX_FMT_RGB24,
  AVCOL_RANGE_JPEG,
  AVCOL_RANGE_MPEG,
  AVCOL_RANGE_UNSPECIFIED,
  AVCOL_SPC_BT709,
  AVCOL_SPC_RGB,
  AVCOL_SPC_UNSPECIFIED,
  AVERROR_EAGAIN,
  AVERROR_EOF,
  AVMEDIA_TYPE_VIDEO,
} from 'node-av/constants';
import { Codec, CodecContext, Dictionary, FormatContext, Frame, Log, Packet, SoftwareScaleContext } from 'node-av/lib';
import { StudioError } from '../../../contract/errors.ts';
import { check } from './ffmpegFailure.ts';

export interface ClipFacts {
  width: number;
  height: number;
  fps: number;
}

/** Containers that clips come in. */
export const readableContainers = 'mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,gif';
/** A playlist or URL inside a hostile file leads nowhere. */
const onlyLocalFiles = { format_whitelist: readableContainers, protocol_whitelist: 'file', max_streams: 16 };
const largestSide = 16384;

/** Opens a container without decoding anything. The caller closes it. Errors: io. */
export async function openContainer(path: string): Promise<FormatContext> {
  Log.setLevel(AV_LOG_QUIET);
  const container = new FormatContext();
  container.allocContext();
  try {
    check(await container.openInput(`file:${path}`, null, Dictionary.fromObject(onlyLocalFiles)), `Reading ${path}`);
    return container;
  } catch (error) {
    await container.closeInput();
    throw error;
  }
}

/**
 * @param onFacts Called once, before the first frame.
 * @returns Frames of one size, each its own bytes. Errors: io, unsupported.
 */
export async function* readFrames(
  path: string,
  onFacts: (facts: ClipFacts) => Promise<void> | void,
): AsyncGenerator<Buffer> {
  const container = await openContainer(path);
  using decoder = new CodecContext();
  using packet = new Packet();
  using frame = new Frame();
  using scaler = new SoftwareScaleContext();
  try {
    check(await container.findStreamInfo(null), `Reading ${path}`);
    const index = container.findBestStream(AVMEDIA_TYPE_VIDEO);
    const stream = container.streams[index];
    const codec = stream && Codec.findDecoder(stream.codecpar.codecId);
    if (!stream || !codec) throw new StudioError('unsupported', `${path}: holds no video that can be read.`);
    decoder.allocContext3(codec);
    check(decoder.parametersToContext(stream.codecpar), `Reading ${path}`);
    check(await decoder.open2(codec, null), `Reading ${path}`);
    const { width, height } = decoder;
    if (!(width >= 1 && width <= largestSide && height >= 1 && height <= largestSide)) {
      throw new StudioError('unsupported', `${path}: ${width}×${height} is not a size that can be read.`);
    }
    const rate = stream.avgFrameRate.toDouble() || stream.rFrameRate.toDouble();
    await onFacts({ width, height, fps: Math.min(240, Math.max(1, rate || 16)) });
    packet.alloc();
    frame.alloc();
    scaler.allocContext();
    check(scaler.setOption('sws_flags', 'bicubic+accurate_rnd+full_chroma_int+full_chroma_inp'), 'Setting up colour');

    for (;;) {
      const read = await container.readFrame(packet);
      if (read < 0 && read !== AVERROR_EOF) check(read, `Reading ${path}`);
      if (read >= 0 && packet.streamIndex !== index) {
        packet.unref();
        continue;
      }
      check(await decoder.sendPacket(read === AVERROR_EOF ? null : packet), `Decoding ${path}`);
      packet.unref();
      for (;;) {
        const received = await decoder.receiveFrame(frame);
        if (received === AVERROR_EAGAIN) break;
        if (received === AVERROR_EOF) return;
        check(received, `Decoding ${path}`);
        if (frame.width !== width || frame.height !== height) {
          throw new StudioError('unsupported', `${path}: its frames change size, which no clip of ours does.`);
        }
        yield await toRgb(frame, scaler);
      }
    }
  } finally {
    await container.closeInput();
  }
}

async function toRgb(frame: Frame, scaler: SoftwareScaleContext): Promise<Buffer> {
  // What a file leaves unsaid is what players assume.
  if (frame.colorSpace === AVCOL_SPC_UNSPECIFIED) frame.colorSpace = AVCOL_SPC_BT709;
  if (frame.colorRange === AVCOL_RANGE_UNSPECIFIED) frame.colorRange = AVCOL_RANGE_MPEG;
  using rgb = new Frame();
  rgb.alloc();
  rgb.width = frame.width;
  rgb.height = frame.height;
  rgb.format = AV_PIX_FMT_RGB24;
  rgb.colorSpace = AVCOL_SPC_RGB;
  rgb.colorRange = AVCOL_RANGE_JPEG;
  rgb.colorPrimaries = frame.colorPrimaries;
  rgb.colorTrc = frame.colorTrc;
  check(rgb.getBuffer(), 'Allocating a frame');
  check(await scaler.scaleFrame(rgb, frame), 'Converting colours');
  return rgb.toBuffer();
}
