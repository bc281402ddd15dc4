/**
 * MP4, WebM and MOV through FFmpeg's libraries (node-av). Pictures come as full-range RGB and are stored as limited-range
 * BT.709, with every colour property written out, because players guess differently where it is missing.
 */
import { rm, stat } from 'node:fs/promises';
import {
  AV_CODEC_FLAG_GLOBAL_HEADER,
  AV_LOG_QUIET,
  AV_PIX_FMT_RGB24,
  AVCHROMA_LOC_LEFT,
  AVCOL_PRI_BT709,
  AVCOL_RANGE_JPEG,
  AVCOL_RANGE_MPEG,
  AVCOL_SPC_BT709,
  AVCOL_SPC_RGB,
  AVCOL_TRC_BT709,
  AVERROR_EAGAIN,
  AVERROR_EOF,
  AVFMT_GLOBALHEADER,
} from 'node-av/constants';
import {
  Codec,
  CodecContext,
  Dictionary,
  FormatContext,
  Frame,
  Log,
  Packet,
  Rational,
  SoftwareScaleContext,
  type Stream,
} from 'node-av/lib';
import { StudioError } from '../../../contract/errors.ts';
import type { EncodedClip, EncodeOptions, Encoder } from './encoder.ts';
import { check } from './ffmpegFailure.ts';
import { fileFailure } from '../files/fileFailure.ts';
import { rateFactors } from './formats.ts';
import { frameRateFraction } from './frameRate.ts';
import { padFrame } from './padFrame.ts';
import { type VideoFormat, type VideoFormatName, videoFormats } from './videoFormats.ts';
import { moveIntoPlace, temporaryBeside } from '../files/temporary.ts';

export class VideoEncoder implements Encoder {
  readonly #options: EncodeOptions;
  readonly #temporary: string;
  readonly #storedWidth: number;
  readonly #storedHeight: number;
  readonly #container = new FormatContext();
  readonly #codec = new CodecContext();
  readonly #packet = new Packet();
  readonly #converted = new Frame();
  readonly #scaler = new SoftwareScaleContext();
  #stream: Stream | undefined;
  #frames = 0;

  private constructor(options: EncodeOptions, format: VideoFormat) {
    this.#options = options;
    this.#temporary = temporaryBeside(options.path);
    this.#storedWidth = roundUp(options.width, format.sideMultiple.width);
    this.#storedHeight = roundUp(options.height, format.sideMultiple.height);
  }

  static async open(options: EncodeOptions & { format: VideoFormatName }): Promise<VideoEncoder> {
    Log.setLevel(AV_LOG_QUIET);
    const encoder = new VideoEncoder(options, videoFormats[options.format]);
    try {
      await encoder.#open(videoFormats[options.format]);
      return encoder;
    } catch (error) {
      await encoder.abort();
      throw error;
    }
  }

  async #open(format: VideoFormat): Promise<void> {
    const { fps, settings, path } = this.#options;
    const codec = Codec.findEncoderByName(format.codec);
    if (!codec) throw new StudioError('unsupported', `This build of FFmpeg has no ${format.codec} encoder.`);
    check(this.#container.allocOutputContext2(null, format.container, this.#temporary), `Preparing ${path}`);

    const rate = frameRateFraction(fps);
    const context = this.#codec;
    context.allocContext3(codec);
    context.width = this.#storedWidth;
    context.height = this.#storedHeight;
    context.pixelFormat = format.pixelFormat;
    context.timeBase = new Rational(rate.den, rate.num);
    context.framerate = new Rational(rate.num, rate.den);
    context.sampleAspectRatio = new Rational(1, 1);
    context.colorSpace = AVCOL_SPC_BT709;
    context.colorPrimaries = AVCOL_PRI_BT709;
    context.colorTrc = AVCOL_TRC_BT709;
    context.colorRange = AVCOL_RANGE_MPEG;
    context.chromaLocation = AVCHROMA_LOC_LEFT;
    // Constant quality: a bit rate of zero is how VP9 and AV1 are told so.
    context.bitRate = 0n;
    // A key frame at least every two seconds keeps seeking quick.
    context.gopSize = Math.max(1, Math.round(2 * fps));
    if (this.#container.oformat?.hasFlags(AVFMT_GLOBALHEADER)) context.setFlags(AV_CODEC_FLAG_GLOBAL_HEADER);
    const options = Dictionary.fromObject({ ...format.codecOptions, ...this.#rateOptions() });
    check(await context.open2(codec, options), `Starting ${format.codec}`);

    this.#stream = this.#container.newStream(null);
    check(this.#stream.codecpar.fromContext(context), 'Describing the stream');
    this.#stream.timeBase = context.timeBase;
    this.#stream.avgFrameRate = context.framerate;
    if (settings !== undefined) this.#container.metadata = Dictionary.fromObject({ comment: settings });
    check(await this.#container.openOutput(), `Creating ${path}`);
    check(await this.#container.writeHeader(Dictionary.fromObject(format.containerOptions)), `Writing ${path}`);

    this.#packet.alloc();
    this.#converted.alloc();
    this.#converted.width = this.#storedWidth;
    this.#converted.height = this.#storedHeight;
    this.#converted.format = format.pixelFormat;
    this.#converted.colorSpace = AVCOL_SPC_BT709;
    this.#converted.colorPrimaries = AVCOL_PRI_BT709;
    this.#converted.colorTrc = AVCOL_TRC_BT709;
    this.#converted.colorRange = AVCOL_RANGE_MPEG;
    this.#converted.chromaLocation = AVCHROMA_LOC_LEFT;
    check(this.#converted.getBuffer(), 'Allocating a frame');
    // The matrix and range come from the frames' own properties.
    this.#scaler.allocContext();
    check(
      this.#scaler.setOption('sws_flags', 'bicubic+accurate_rnd+full_chroma_int+full_chroma_inp'),
      'Setting up colour',
    );
  }

  #rateOptions(): Record<string, string> {
    const range = rateFactors[this.#options.format];
    return range ? { crf: String(this.#options.rateFactor ?? range.default) } : {};
  }

  async write(rgb: Uint8Array): Promise<void> {
    const { width, height } = this.#options;
    const frameBytes = width * height * 3;
    for (let at = 0; at < rgb.length; at += frameBytes) {
      const picture = padFrame(rgb.subarray(at, at + frameBytes), width, height, this.#storedWidth, this.#storedHeight);
      using source = Frame.fromVideoBuffer(picture, {
        width: this.#storedWidth,
        height: this.#storedHeight,
        format: AV_PIX_FMT_RGB24,
      });
      source.colorSpace = AVCOL_SPC_RGB;
      source.colorRange = AVCOL_RANGE_JPEG;
      source.colorPrimaries = AVCOL_PRI_BT709;
      source.colorTrc = AVCOL_TRC_BT709;
      // The encoder may still hold the previous picture.
      check(this.#converted.makeWritable(), 'Allocating a frame');
      check(await this.#scaler.scaleFrame(this.#converted, source), 'Converting colours');
      this.#converted.pts = BigInt(this.#frames++);
      check(await this.#codec.sendFrame(this.#converted), 'Encoding');
      await this.#drain();
    }
  }

  /** Moves finished packets from the encoder into the file. */
  async #drain(): Promise<void> {
    const stream = this.#stream as Stream;
    for (;;) {
      const code = await this.#codec.receivePacket(this.#packet);
      if (code === AVERROR_EAGAIN || code === AVERROR_EOF) return;
      check(code, 'Encoding');
      this.#packet.streamIndex = stream.index;
      this.#packet.duration = 1n;
      this.#packet.rescaleTs(this.#codec.timeBase, stream.timeBase);
      check(await this.#container.interleavedWriteFrame(this.#packet), `Writing ${this.#options.path}`);
      this.#checkFile();
    }
  }

  /** Writes are buffered; a failed one shows on the file. */
  #checkFile(): void {
    check(this.#container.pb?.error ?? 0, `Writing ${this.#options.path}`);
  }

  async finish(): Promise<EncodedClip> {
    const { path, format, fps } = this.#options;
    try {
      check(await this.#codec.sendFrame(null), 'Encoding');
      await this.#drain();
      check(await this.#container.writeTrailer(), `Writing ${path}`);
      await this.#container.pb?.flush();
      this.#checkFile();
      await this.#container.closeOutput();
      await moveIntoPlace(this.#temporary, path);
    } catch (error) {
      await this.abort();
      throw fileFailure(error, `Writing ${path}`);
    }
    this.#free();
    const { size } = await stat(path);
    return {
      path,
      format,
      width: this.#storedWidth,
      height: this.#storedHeight,
      frames: this.#frames,
      fps,
      bytes: size,
    };
  }

  async abort(): Promise<void> {
    await this.#container.closeOutput();
    this.#free();
    await rm(this.#temporary, { force: true });
  }

  #free(): void {
    this.#codec.freeContext();
    this.#packet.free();
    this.#converted.free();
    this.#scaler.freeContext();
    this.#container.freeContext();
  }
}

function roundUp(value: number, multiple: number): number {
  return Math.ceil(value / multiple) * multiple;
}
