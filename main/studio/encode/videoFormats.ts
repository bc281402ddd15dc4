/** How the formats that FFmpeg's libraries write are encoded. */
import {
  AV_PIX_FMT_YUV420P,
  AV_PIX_FMT_YUV422P10LE,
  FF_ENCODER_LIBSVTAV1,
  FF_ENCODER_LIBVPX_VP9,
  FF_ENCODER_LIBX264,
  FF_ENCODER_PRORES_KS,
} from 'node-av/constants';
import type { AVPixelFormat, FFVideoEncoder } from 'node-av/constants';
import type { ClipFormat } from './formats.ts';

export interface VideoFormat {
  container: string;
  containerOptions: Record<string, string>;
  codec: FFVideoEncoder;
  codecOptions: Record<string, string>;
  pixelFormat: AVPixelFormat;
  /** Sizes are padded to multiples of these by repeating the last column and row. */
  sideMultiple: { width: number; height: number };
}

export type VideoFormatName = Exclude<ClipFormat, 'gif' | 'png'>;

export const videoFormats: Record<VideoFormatName, VideoFormat> = {
  mp4: {
    container: 'mp4',
    // The index comes first, so that a browser can start before the whole file is there.
    containerOptions: { movflags: '+faststart' },
    codec: FF_ENCODER_LIBX264,
    codecOptions: { preset: 'medium' },
    pixelFormat: AV_PIX_FMT_YUV420P,
    sideMultiple: { width: 2, height: 2 },
  },
  'webm-vp9': {
    container: 'webm',
    containerOptions: {},
    codec: FF_ENCODER_LIBVPX_VP9,
    codecOptions: { deadline: 'good', 'cpu-used': '3', 'row-mt': '1' },
    pixelFormat: AV_PIX_FMT_YUV420P,
    sideMultiple: { width: 1, height: 1 },
  },
  'webm-av1': {
    container: 'webm',
    containerOptions: {},
    codec: FF_ENCODER_LIBSVTAV1,
    codecOptions: { preset: '7' },
    pixelFormat: AV_PIX_FMT_YUV420P,
    sideMultiple: { width: 2, height: 2 },
  },
  'mov-prores': {
    container: 'mov',
    // QuickTime's own comment field is limited to 64 KB; this layout is not.
    containerOptions: { movflags: '+use_metadata_tags' },
    codec: FF_ENCODER_PRORES_KS,
    codecOptions: { profile: 'hq', vendor: 'apl0' },
    pixelFormat: AV_PIX_FMT_YUV422P10LE,
    sideMultiple: { width: 2, height: 2 },
  },
};
