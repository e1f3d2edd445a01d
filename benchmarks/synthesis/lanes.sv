// The compute lanes whose cost the board files state. Every top has the same ports:
// x, w: operands of N lanes, one operation a lane and cycle; y: the accumulator, cleared by `clear` (FDRE.R, DSP RSTP).
// N = 1 is a lane with an accumulator of its own ("scalar"), N = 16 a dot product with an adder tree ("tree").
`default_nettype none

// Pipelined binary adder tree over N signed terms, N a power of two; latency log2(N).
module adder_tree #(parameter N = 16, TERM = 16, localparam SUM = TERM + $clog2(N)) (
    input wire clk, input wire [N*TERM-1:0] terms, output wire signed [SUM-1:0] sum);
  generate
    if (N == 1) assign sum = terms;
    else begin : level
      reg [(N/2)*(TERM+1)-1:0] pairs;
      integer i;
      always @(posedge clk)
        for (i = 0; i < N/2; i = i + 1)
          pairs[i*(TERM+1) +: TERM+1] <= $signed(terms[2*i*TERM +: TERM]) + $signed(terms[(2*i+1)*TERM +: TERM]);
      adder_tree #(.N(N/2), .TERM(TERM+1)) rest (.clk(clk), .terms(pairs), .sum(sum));
    end
  endgenerate
endmodule

// Accumulates N terms a cycle. A term that is to be negated arrives inverted with its sign bit set: -v = ~v + 1.
// The + 1 is the carry-in of a scalar lane; in a dot product the N sign bits are counted and added once.
module accumulate #(parameter N = 16, TERM = 16, SIGNED_TERMS = 0, ACC = 24) (
    input wire clk, enable, clear, input wire [N*TERM-1:0] terms, input wire [N-1:0] signs,
    output reg signed [ACC-1:0] y);
  localparam L = $clog2(N);
  wire signed [TERM+L-1:0] sum;
  adder_tree #(.N(N), .TERM(TERM)) tree (.clk(clk), .terms(terms), .sum(sum));
  generate
    if (!SIGNED_TERMS) begin : plain
      always @(posedge clk) if (clear) y <= 0; else if (enable) y <= y + sum;
    end else if (N == 1) begin : carry_in
      wire signed [ACC-1:0] wide = sum;
      wire [ACC:0] next = {y, 1'b1} + {wide, signs};
      always @(posedge clk) if (clear) y <= 0; else if (enable) y <= next[ACC:1];
    end else begin : counted
      integer i, d;
      reg [L:0] count, delayed [0:L-1];
      reg signed [TERM+L:0] total;
      always @* begin count = 0; for (i = 0; i < N; i = i + 1) count = count + signs[i]; end
      always @(posedge clk) begin
        delayed[0] <= count;
        for (d = 1; d < L; d = d + 1) delayed[d] <= delayed[d-1];
        total <= sum + $signed({1'b0, delayed[L-1]});
        if (clear) y <= 0; else if (enable) y <= y + total;
      end
    end
  endgenerate
endmodule

// y += sum x * w; the multiplier is inferred: on DSPs, or in LUTs with synth_xilinx -nodsp.
module mac #(parameter N = 1, X = 8, W = 8, ACC = 24) (
    input wire clk, enable, clear, input wire [N*X-1:0] x, input wire [N*W-1:0] w, output wire [ACC-1:0] y);
  localparam TERM = X + W;
  reg [N*X-1:0] xq; reg [N*W-1:0] wq; reg [N*TERM-1:0] terms;
  integer i;
  always @(posedge clk) begin
    xq <= x; wq <= w;
    for (i = 0; i < N; i = i + 1) terms[i*TERM +: TERM] <= $signed(xq[i*X +: X]) * $signed(wq[i*W +: W]);
  end
  accumulate #(.N(N), .TERM(TERM), .ACC(ACC)) acc (
    .clk(clk), .enable(enable), .clear(clear), .terms(terms), .signs({N{1'b0}}), .y(y));
endmodule

// 8x8 multiplier as seven carry chains, each absorbing the AND of its row: smaller than the inferred one.
module multiply_rows (input wire clk, input wire signed [7:0] x, w, output reg [15:0] product);
  reg signed [7:0] xq, wq;
  wire signed [8:0] r0 = {xq[7] & wq[0], xq & {8{wq[0]}}};
  wire signed [8:0] r1 = $signed(r0[8:1]) + $signed(xq & {8{wq[1]}});
  wire signed [8:0] r2 = $signed(r1[8:1]) + $signed(xq & {8{wq[2]}});
  wire signed [8:0] r3 = $signed(r2[8:1]) + $signed(xq & {8{wq[3]}});
  wire signed [8:0] r4 = $signed(r3[8:1]) + $signed(xq & {8{wq[4]}});
  wire signed [8:0] r5 = $signed(r4[8:1]) + $signed(xq & {8{wq[5]}});
  wire signed [8:0] r6 = $signed(r5[8:1]) + $signed(xq & {8{wq[6]}});
  wire signed [8:0] r7 = $signed(r6[8:1]) - $signed(xq & {8{wq[7]}});
  always @(posedge clk) begin
    xq <= x; wq <= w;
    product <= {r7, r6[0], r5[0], r4[0], r3[0], r2[0], r1[0], r0[0]};
  end
endmodule

module mac_rows #(parameter N = 1, ACC = 24) (
    input wire clk, enable, clear, input wire [N*8-1:0] x, input wire [N*8-1:0] w, output wire [ACC-1:0] y);
  wire [N*16-1:0] terms;
  genvar i;
  generate
    for (i = 0; i < N; i = i + 1) begin : lane
      multiply_rows row (.clk(clk), .x(x[i*8 +: 8]), .w(w[i*8 +: 8]), .product(terms[i*16 +: 16]));
    end
  endgenerate
  accumulate #(.N(N), .TERM(16), .ACC(ACC)) acc (
    .clk(clk), .enable(enable), .clear(clear), .terms(terms), .signs({N{1'b0}}), .y(y));
endmodule

// Two MACs on one DSP: two weights w = {a, b} in [-127, 127] (two output channels) share the activation x.
// (a * 2^17 + b) * x is split every cycle into y = {sum a * x, sum b * x}; bit 16 of the product is the borrow of the
// low half and becomes the carry-in of the high half. a = -128 would overflow the 25-bit pre-adder.
module mac_packed #(parameter ACC = 24) (
    input wire clk, enable, clear, input wire signed [7:0] x, input wire [15:0] w, output wire [2*ACC-1:0] y);
  reg signed [24:0] aq, sum; reg signed [7:0] bq, xq, xq2; reg signed [32:0] m, p;
  reg signed [ACC-1:0] ya, yb;
  wire signed [ACC-1:0] high = $signed(p[32:17]);
  wire [ACC:0] next = {ya, 1'b1} + {high, p[16]};
  assign y = {ya, yb};
  always @(posedge clk) begin
    aq <= {w[15:8], 17'b0}; bq <= w[7:0]; xq <= x;
    sum <= aq + bq; xq2 <= xq;
    m <= sum * xq2; p <= m;
    if (clear) begin ya <= 0; yb <= 0; end
    else if (enable) begin ya <= next[ACC:1]; yb <= yb + $signed(p[16:0]); end
  end
endmodule

// y += sum of +-(x << (M - w)), M = 2^E - 1 the largest magnitude: w = {sign, magnitude} as ShiftConv stores it,
// magnitude 0 is weight 0. The exact integer form: no bit is lost before the accumulator.
module shift #(parameter N = 1, X = 8, E = 3, ACC = 24, ZERO = 1) (
    input wire clk, enable, clear, input wire [N*X-1:0] x, input wire [N*(E+1)-1:0] w, output wire [ACC-1:0] y);
  localparam TERM = X + (1 << E) - 1 - ZERO;
  reg [N*X-1:0] xq; reg [N*(E+1)-1:0] wq; reg [N*TERM-1:0] shifted, terms; reg [N-1:0] signs;
  reg signed [TERM-1:0] wide; reg [E-1:0] magnitude; reg is_zero;
  integer i, j;
  always @(posedge clk) begin
    xq <= x; wq <= w;
    for (i = 0; i < N; i = i + 1) begin
      wide = $signed(xq[i*X +: X]);
      magnitude = wq[i*(E+1) +: E];
      is_zero = ZERO != 0 && magnitude == 0;
      shifted[i*TERM +: TERM] <= is_zero ? {TERM{1'b0}} : wide <<< (ZERO != 0 ? ~magnitude : magnitude);
      signs[i] <= wq[i*(E+1)+E] & ~is_zero;
    end
  end
  always @* for (j = 0; j < N; j = j + 1) terms[j*TERM +: TERM] = shifted[j*TERM +: TERM] ^ {TERM{signs[j]}};
  accumulate #(.N(N), .TERM(TERM), .SIGNED_TERMS(1), .ACC(ACC)) acc (
    .clk(clk), .enable(enable), .clear(clear), .terms(terms), .signs(signs), .y(y));
endmodule

// The same on a DSP: the power of two that a code stands for is decoded before the operand register of the multiplier.
module shift_dsp #(parameter N = 1, X = 8, ACC = 24) (
    input wire clk, enable, clear, input wire [N*X-1:0] x, input wire [N*4-1:0] w, output wire [ACC-1:0] y);
  localparam TERM = X + 8;
  localparam [127:0] POWERS = 128'hFFFEFCF8_F0E0C000_01020408_10204000;  // of codes 15 .. 0
  reg [N*X-1:0] xq; reg [N*8-1:0] wq; reg [N*TERM-1:0] terms;
  integer n;
  always @(posedge clk) begin
    xq <= x;
    for (n = 0; n < N; n = n + 1) begin
      wq[n*8 +: 8] <= POWERS[8*w[n*4 +: 4] +: 8];
      terms[n*TERM +: TERM] <= $signed(xq[n*X +: X]) * $signed(wq[n*8 +: 8]);
    end
  end
  accumulate #(.N(N), .TERM(TERM), .ACC(ACC)) acc (
    .clk(clk), .enable(enable), .clear(clear), .terms(terms), .signs({N{1'b0}}), .y(y));
endmodule

// y += sum |x - w|; the minus of AdderNet is taken where the sum leaves the array.
module adder #(parameter N = 1, X = 8, ACC = 24) (
    input wire clk, enable, clear, input wire [N*X-1:0] x, input wire [N*X-1:0] w, output wire [ACC-1:0] y);
  localparam TERM = X + 1;
  reg [N*X-1:0] xq, wq; reg [N*TERM-1:0] difference, terms; reg [N-1:0] signs;
  integer i, j;
  always @(posedge clk) begin
    xq <= x; wq <= w;
    for (i = 0; i < N; i = i + 1) difference[i*TERM +: TERM] <= $signed(xq[i*X +: X]) - $signed(wq[i*X +: X]);
  end
  always @* for (j = 0; j < N; j = j + 1) begin
    signs[j] = difference[j*TERM + X];
    terms[j*TERM +: TERM] = {1'b0, difference[j*TERM +: X] ^ {X{signs[j]}}};
  end
  accumulate #(.N(N), .TERM(TERM), .SIGNED_TERMS(1), .ACC(ACC)) acc (
    .clk(clk), .enable(enable), .clear(clear), .terms(terms), .signs(signs), .y(y));
endmodule

// One element-wise lane, x = {a, b} int8, w = {op, relu, m1, m0} with 16-bit multipliers of 14 fraction bits:
// op 0 add: a*m0 + b*m1; op 1 max: max(a, b)*m0; op 2 multiply: a*b*m1 * 2^-7. Then round, clamp to int8 (relu: to >= 0).
module vector (input wire clk, enable, clear, input wire [15:0] x, input wire [34:0] w, output reg [7:0] y);
  reg signed [7:0] a, b, s, b1, b2; reg signed [15:0] m0, m1, m1a, m1b, f, c1; reg [1:0] op, op1, op2, op3;
  reg relu, relu1, relu2, relu3, relu4;
  reg signed [23:0] p; reg signed [24:0] c; reg signed [33:0] q;
  wire signed [33:0] t = op3 == 2 ? q >>> 21 : q >>> 14;
  wire signed [15:0] second = op2 == 2 ? $signed(p[15:0]) : op2 == 1 ? 16'sd0 : b2;
  reg signed [15:0] d; reg signed [15:0] m1c; reg [1:0] opd;
  localparam signed [33:0] HALF = 34'sd1 << 13, HALF_PRODUCT = 34'sd1 << 20;
  always @(posedge clk) begin
    {relu4, relu3, relu2, relu1} <= {relu3, relu2, relu1, relu};
    {op, relu, m1, m0} <= w; {a, b} <= x;                                            // 1: operands
    s <= op == 1 && b > a ? b : a; f <= op == 2 ? b : m0; b1 <= b; m1a <= m1; op1 <= op;  // 2: select
    p <= s * f; b2 <= b1; m1b <= m1a; op2 <= op1;                                    // 3: first DSP
    d <= second; c <= op2 == 2 ? 25'sd0 : p; m1c <= m1b; opd <= op2;                 // 4: select
    q <= d * m1c + c + (opd == 2 ? HALF_PRODUCT : HALF); op3 <= opd;                 // 5: second DSP
    if (clear) y <= 0;                                                               // 6: clamp
    else if (enable) y <= t > 127 ? 8'd127 : t < (relu4 ? 0 : -128) ? (relu4 ? 8'd0 : 8'h80) : t[7:0];
  end
endmodule

// What each output lane of a chunk needs after its accumulator: y = clamp((x * m + half) >> shift), per-channel m.
// x: 24-bit accumulator; w = {relu, step, m}, m an 18-bit signed multiplier, shift = 12 + 6 * step.
module requantise (input wire clk, enable, clear, input wire [23:0] x, input wire [20:0] w, output reg [7:0] y);
  reg signed [23:0] xq; reg signed [17:0] m; reg [1:0] step, step1, step2; reg relu, relu1, relu2;
  reg signed [41:0] p, t; reg [30:0] half;
  always @(posedge clk) begin
    xq <= x; {relu, step, m} <= w;
    p <= xq * m; step1 <= step; relu1 <= relu;
    half = 31'd1 << (step1 == 0 ? 11 : step1 == 1 ? 17 : step1 == 2 ? 23 : 29);
    t <= p + $signed({1'b0, half}); step2 <= step1; relu2 <= relu1;
    if (clear) y <= 0;
    else if (enable) y <= clamp(step2 == 0 ? t >>> 12 : step2 == 1 ? t >>> 18 : step2 == 2 ? t >>> 24 : t >>> 30, relu2);
  end
  function [7:0] clamp(input signed [41:0] v, input lowest_is_zero);
    clamp = v > 127 ? 8'd127 : v < (lowest_is_zero ? 0 : -128) ? (lowest_is_zero ? 8'd0 : 8'h80) : v[7:0];
  endfunction
endmodule

// The same with a power of two for a scale, as the chunk that was measured has it: y = clamp((x + half) >> w).
module requantise_shift (input wire clk, enable, clear, input wire [23:0] x, input wire [5:0] w, output reg [7:0] y);
  wire relu = w[5]; wire [4:0] amount = w[4:0];
  wire signed [24:0] rounded = $signed(x) + $signed((32'd1 << amount) >> 1);
  wire signed [24:0] t = rounded >>> amount;
  always @(posedge clk)
    if (clear) y <= 0;
    else if (enable) y <= t > 127 ? 8'd127 : t < (relu ? 0 : -128) ? (relu ? 8'd0 : 8'h80) : t[7:0];
endmodule

// The read multiplexer of a buffer: w picks one of BANKS words of 64 bits.
module bank_mux #(parameter BANKS = 16) (
    input wire clk, enable, clear, input wire [64*BANKS-1:0] x, input wire [$clog2(BANKS)-1:0] w, output reg [63:0] y);
  genvar bit_, bank;
  generate
    for (bit_ = 0; bit_ < 64; bit_ = bit_ + 1) begin : column
      wire [BANKS-1:0] bits;
      for (bank = 0; bank < BANKS; bank = bank + 1) assign bits[bank] = x[bank*64 + bit_];
      always @(posedge clk) if (clear) y[bit_] <= 0; else if (enable) y[bit_] <= bits[w];
    end
  endgenerate
endmodule

// A buffer in distributed RAM, one column a lane: writes x at the upper half of w, reads at the lower half.
module buffer_ram #(parameter DEPTH = 64, WIDTH = 66, localparam A = $clog2(DEPTH)) (
    input wire clk, enable, clear, input wire [WIDTH-1:0] x, input wire [2*A-1:0] w, output reg [WIDTH-1:0] y);
  (* ram_style = "distributed" *) reg [WIDTH-1:0] words [0:DEPTH-1];
  always @(posedge clk) begin
    if (enable) words[w[2*A-1:A]] <= x;
    if (clear) y <= 0; else if (enable) y <= words[w[A-1:0]];
  end
endmodule
`default_nettype wire
