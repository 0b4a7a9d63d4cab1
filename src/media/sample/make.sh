#!/bin/sh
# Makes demo.ts, the sample that `headwater demo` replays for ever: exactly one minute of a clock
# over colour bars with an orbiting square, and a 440 Hz tone. Needs ffmpeg with libx264 and the
# DejaVu fonts.
#
# Why it loops without a seam:
#   - 60 s are 1,500 frames at 25/s and, at 32 kHz, exactly 1,875 AAC frames of 1,024 samples;
#   - three minutes are encoded and the second one is cut out at key frames, so that no encoder
#     start or end is inside and the AAC frame grid (32 ms) meets both cuts;
#   - the orbit (6 s) and the tone (26,400 cycles) come out even.
# No B-frames, a key frame every second with PAT and PMT in front, PCR on every frame.
set -eu
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

mono='font=DejaVu Sans Mono:fontcolor=white:box=1:boxcolor=black:boxborderw=8'
sans='font=DejaVu Sans:fontcolor=white:box=1:boxcolor=black:boxborderw=5'
second='%{eif\:mod(trunc(n/25),60)\:d\:2}.%{eif\:trunc(mod(n,25)*10/25)\:d}'

ffmpeg -v error -y \
  -f lavfi -i 'smptebars=size=480x270:rate=25' \
  -f lavfi -i 'color=c=orange:size=24x24:rate=25' \
  -f lavfi -i 'sine=frequency=440:sample_rate=32000' \
  -filter_complex "[0:v]trim=end_frame=1,loop=loop=-1:size=1,setpts=N/25/TB[bars];
    [bars][1:v]overlay=x='228+200*cos(2*PI*n/150)':y='123+110*sin(2*PI*n/150)'[orbit];
    [orbit]drawtext=$mono:fontsize=84:x=(w-text_w)/2:y=88:text='$second',
    drawtext=$sans:fontsize=22:x=(w-text_w)/2:y=184:text='headwater demo',format=yuv420p[v];
    [2:a]volume=0.5[a]" \
  -map '[v]' -map '[a]' -t 180 \
  -c:v libx264 -profile:v main -preset veryslow -bf 0 -refs 2 -threads 1 \
  -g 25 -keyint_min 25 -sc_threshold 0 -crf 30 -maxrate 80k -bufsize 80k \
  -c:a aac -ac 1 -ar 32000 -b:a 24k \
  "$work/long.mp4"

ffmpeg -v error -y -ss 60 -i "$work/long.mp4" -t 60 -c copy -map 0 \
  -f mpegts -pat_period 1 -sdt_period 10 -muxdelay 0.4 -muxpreload 0 \
  -mpegts_service_id 1 -metadata service_provider=headwater -metadata service_name=demo \
  demo.ts
