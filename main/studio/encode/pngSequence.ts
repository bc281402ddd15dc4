/** A folder of PNG pictures, frame_0001.png onwards, with the settings in each picture and in settings.json. */
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import { AV_LOG_QUIET, AV_PIX_FMT_RGB24, FF_ENCODER_PNG } from 'node-av/constants';
import { Codec, CodecContext, Frame, Log, Packet, Rational } from 'node-av/lib';
import { StudioError } from '../../../contract/errors.ts';
import type { EncodedClip, EncodeOptions, Encoder } from './encoder.ts';
import { check } from './ffmpegFailure.ts';
import { fileFailure } from '../files/fileFailure.ts';
import { moveFolderIntoPlace, temporaryBeside } from '../files/temporary.ts';

export class PngSequence implements Encoder {
  readonly #options: EncodeOptions;
  readonly #temporary: string;
  readonly #pictures: PngWriter;
  #frames = 0;
  #bytes = 0;

  private constructor(options: EncodeOptions, temporary: string, pictures: PngWriter) {
    this.#options = options;
    this.#temporary = temporary;
    this.#pictures = pictures;
  }

  static async open(options: EncodeOptions): Promise<PngSequence> {
    const temporary = temporaryBeside(options.path);
    try {
      await mkdir(temporary);
    } catch (error) {
      throw fileFailure(error, `Creating ${options.path}`);
    }
    const sequence = new PngSequence(options, temporary, await PngWriter.open(options.width, options.height));
    try {
      if (options.settings !== undefined) await sequence.#put('settings.json', Buffer.from(`${options.settings}\n`));
    } catch (error) {
      await sequence.abort();
      throw error;
    }
    return sequence;
  }

  async write(rgb: Uint8Array): Promise<void> {
    const { width, height, settings } = this.#options;
    const frameBytes = width * height * 3;
    for (let at = 0; at < rgb.length; at += frameBytes) {
      const picture = await this.#pictures.encode(rgb.subarray(at, at + frameBytes), settings);
      await this.#put(`frame_${String(++this.#frames).padStart(4, '0')}.png`, picture);
    }
  }

  async #put(name: string, content: Buffer): Promise<void> {
    try {
      await writeFile(join(this.#temporary, name), content);
    } catch (error) {
      throw fileFailure(error, `Writing ${join(this.#options.path, name)}`);
    }
    this.#bytes += content.length;
  }

  async finish(): Promise<EncodedClip> {
    const { path, format, width, height, fps } = this.#options;
    try {
      await moveFolderIntoPlace(this.#temporary, path);
    } catch (error) {
      await this.abort();
      throw fileFailure(error, `Writing ${path}`);
    }
    this.#pictures.close();
    return { path, format, width, height, frames: this.#frames, fps, bytes: this.#bytes };
  }

  async abort(): Promise<void> {
    this.#pictures.close();
    await rm(this.#temporary, { recursive: true, force: true });
  }
}

/** Encodes single RGB24 pictures. */
export class PngWriter {
  readonly #codec = new CodecContext();
  readonly #packet = new Packet();
  readonly #width: number;
  readonly #height: number;

  private constructor(width: number, height: number) {
    this.#width = width;
    this.#height = height;
  }

  static async open(width: number, height: number): Promise<PngWriter> {
    Log.setLevel(AV_LOG_QUIET);
    const codec = Codec.findEncoderByName(FF_ENCODER_PNG);
    if (!codec) throw new StudioError('unsupported', 'This build of FFmpeg has no PNG encoder.');
    const writer = new PngWriter(width, height);
    const context = writer.#codec;
    context.allocContext3(codec);
    context.width = width;
    context.height = height;
    context.pixelFormat = AV_PIX_FMT_RGB24;
    context.timeBase = new Rational(1, 1);
    context.threadCount = 1; // one picture in, one picture out
    check(await context.open2(codec, null), 'Starting the PNG encoder');
    writer.#packet.alloc();
    return writer;
  }

  /** @param comment Kept as international text in the picture. */
  async encode(rgb: Uint8Array, comment?: string): Promise<Buffer> {
    using frame = Frame.fromVideoBuffer(Buffer.from(rgb.buffer, rgb.byteOffset, rgb.byteLength), {
      width: this.#width,
      height: this.#height,
      format: AV_PIX_FMT_RGB24,
    });
    check(await this.#codec.sendFrame(frame), 'Encoding a picture');
    check(await this.#codec.receivePacket(this.#packet), 'Encoding a picture');
    const picture = Buffer.from(this.#packet.data as Buffer);
    return comment === undefined ? picture : withComment(picture, comment);
  }

  close(): void {
    this.#codec.freeContext();
    this.#packet.free();
  }
}

/** Puts an iTXt chunk behind the header (PNG specification 11.3.3.4), which is always 8 + 25 bytes long. */
function withComment(picture: Buffer, comment: string): Buffer {
  const headerEnd = 8 + 25;
  const body = Buffer.concat([Buffer.from('iTXtComment\0\0\0\0\0', 'latin1'), Buffer.from(comment, 'utf8')]);
  const chunk = Buffer.alloc(body.length + 8);
  chunk.writeUInt32BE(body.length - 4, 0);
  body.copy(chunk, 4);
  chunk.writeUInt32BE(crc32(body), body.length + 4);
  return Buffer.concat([picture.subarray(0, headerEnd), chunk, picture.subarray(headerEnd)]);
}
