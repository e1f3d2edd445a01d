// One accelerator chunk, the machine whose overhead beyond the lanes overhead.py measures: descriptor-driven, double-
// buffered, output-stationary, P input channels x Q output channels a cycle (Q a multiple of P). OP 0 mac, 1 shift,
// 2 adder. It requantises by a rounding shift of a power of two. One request a burst, one DMA channel, no padding logic.
`default_nettype none
// Pipelined binary adder tree.
module addtree #(parameter N=8, IW=16)(input wire clk, input wire [N*IW-1:0] i,
  output wire signed [IW+$clog2(N)-1:0] o);
  generate if (N==1) begin : leaf assign o=i; end
  else begin : lvl
    reg [(N/2)*(IW+1)-1:0] r; integer k;
    always @(posedge clk) for (k=0;k<N/2;k=k+1)
      r[k*(IW+1)+:IW+1] <= $signed(i[(2*k)*IW+:IW]) + $signed(i[(2*k+1)*IW+:IW]);
    addtree #(.N(N/2),.IW(IW+1)) t(.clk(clk),.i(r),.o(o));
  end endgenerate
endmodule

// P-lane dot unit. latency: 1 (operand reg) + 1 (term) + log2 P (tree) + 1 (sign correction)
module dot #(parameter OP=0, P=8, WW=8, AW=24)(input wire clk, input wire [P*8-1:0] x,
  input wire [P*WW-1:0] w, output reg signed [AW-1:0] t);
  localparam L=$clog2(P), EW=WW-1;
  localparam TW = OP==0 ? 8+WW : OP==1 ? 8+(1<<EW)-1 : 9;
  reg [P*8-1:0] xq; reg [P*WW-1:0] wq; always @(posedge clk) begin xq<=x; wq<=w; end
  reg [P*TW-1:0] v, vi; reg [P-1:0] s; integer k,j,m;
  always @(posedge clk) for (k=0;k<P;k=k+1) begin
    if (OP==0) begin v[k*TW+:TW] <= $signed(xq[k*8+:8])*$signed(wq[k*WW+:WW]); s[k]<=0; end
    else if (OP==1) begin v[k*TW+:TW] <= $signed({{(TW-8){xq[k*8+7]}},xq[k*8+:8]}) <<< wq[k*WW+:EW]; s[k]<=wq[k*WW+EW]; end
    else v[k*TW+:TW] <= $signed(xq[k*8+:8])-$signed(wq[k*WW+:WW]);
  end
  always @* for (j=0;j<P;j=j+1)
    if (OP==0) vi[j*TW+:TW]=v[j*TW+:TW];
    else if (OP==1) vi[j*TW+:TW]=v[j*TW+:TW]^{TW{s[j]}};
    else vi[j*TW+:TW]=v[j*TW+:TW]^{TW{v[j*TW+TW-1]}};
  wire signed [TW+L-1:0] sum; addtree #(P,TW) tr(clk,vi,sum);
  reg [L:0] c; reg [L:0] cd [0:L]; integer n;
  always @* begin c=0; for (m=0;m<P;m=m+1) c=c+((OP==2)? v[m*TW+TW-1] : (OP==1)? s[m] : 1'b0); end
  always @(posedge clk) begin cd[0]<=c; for (n=1;n<L;n=n+1) cd[n]<=cd[n-1]; end
  always @(posedge clk) t <= sum + $signed({1'b0,cd[L-1]});
endmodule

// Simple dual-port memory with a registered read.
module sram #(parameter W=64, A=10)(input wire clk, we, input wire [A-1:0] wa, ra, input wire [W-1:0] d, output reg [W-1:0] q);
  reg [W-1:0] mem [0:(1<<A)-1];
  always @(posedge clk) begin if (we) mem[wa]<=d; q<=mem[ra]; end
endmodule

// Sequencer, DMA, compute control, buffers, PE array and write-back.
module chunk #(parameter OP=0, P=8, Q=8, WW=8, AW=24, AA=11, WA=9, OA=10, BL=16, DA=9)(
  input wire clk, rst, input wire go, output reg done,
  // layer configuration registers (written by the host before go)
  input wire [15:0] c_run,      // K*Cg : contiguous act words per kernel row
  input wire [7:0]  c_k,        // kernel rows
  input wire [AA-1:0] c_jrow,   // jump between kernel rows
  input wire [AA-1:0] c_jpix,   // base step per output pixel (stride*Cg)
  input wire [AA-1:0] c_jline,  // base step at end of an output line
  input wire [15:0] c_wo, c_mg, // output columns, output-channel groups in a tile
  input wire [4:0]  c_rs, input wire c_relu,
  // descriptor memory (one per schedule step)
  output reg [DA-1:0] d_idx, input wire [191:0] d_word,
  // memory port: burst requests, P bytes per beat
  output reg req, output reg req_we, output reg [23:0] req_addr, output reg [8:0] req_len, input wire req_rdy,
  input wire rvalid, input wire [P*8-1:0] rdata, input wire wready, output wire [P*8-1:0] wdata,
  // performance counters
  output reg [31:0] n_cyc, n_comp, n_dma);
  localparam LB=$clog2(P), NB=(Q*WW)/8, R=Q/P, LAT=4+$clog2(P);   // NB weight banks, R output banks
  // ---- descriptor fields
  wire [23:0] la_a=d_word[23:0],  lw_a=d_word[63:40], st_a=d_word[103:80];
  wire [15:0] la_n=d_word[39:24], lw_n=d_word[79:64], st_n=d_word[119:104], rows=d_word[135:120];
  wire la_b=d_word[136], lw_b=d_word[137], ca_b=d_word[138], cw_b=d_word[139], last_step=d_word[140];
  // output buffer: compute writes bank co_b, store reads the other
  wire co_b=d_word[141];
  // ---- sequencer
  reg [1:0] st; reg start; wire comp_busy, dma_busy;
  always @(posedge clk) begin
    start<=0;
    if (rst) begin st<=0; d_idx<=0; done<=0; n_cyc<=0; n_comp<=0; n_dma<=0; end
    else begin
      if (st!=0) begin n_cyc<=n_cyc+1; n_comp<=n_comp+comp_busy; n_dma<=n_dma+dma_busy; end
      case (st)
        0: if (go && !done) begin st<=1; end
        1: begin start<=1; st<=2; end
        2: st<=3;                              // let busy flags rise
        3: if (!comp_busy && !dma_busy) begin
             if (last_step) begin st<=0; done<=1; end else begin d_idx<=d_idx+1; st<=1; end end
      endcase
    end
  end
  // ---- DMA: act load, weight load, store, in that order
  reg [2:0] ds; reg [1:0] seg; reg [15:0] rem, ptr; reg [8:0] beats; reg [15:0] wq_i, wrow;
  assign dma_busy = ds!=0 | start;
  wire [8:0] blen = rem>BL ? BL : rem[8:0];
  wire beat = req_we ? wready : rvalid;
  always @(posedge clk) if (rst) begin ds<=0; req<=0; req_we<=0; end else case (ds)
    0: if (start) begin ds<=1; seg<=0; end
    1: begin // set up segment
      ptr<=0; wq_i<=0; wrow<=0; req_we<= seg==2;
      rem <= seg==0?la_n:seg==1?lw_n:st_n; req_addr <= seg==0?la_a:seg==1?lw_a:st_a;
      if ((seg==0?la_n:seg==1?lw_n:st_n)==0) begin if (seg==2) ds<=0; else seg<=seg+1; end
      else ds<=2; end
    2: begin req<=1; req_len<=blen; beats<=blen; if (req && req_rdy) begin req<=0; ds<=3; end end
    3: if (beat) begin
        ptr<=ptr+1; rem<=rem-1; beats<=beats-1;
        if (wq_i==NB-1) begin wq_i<=0; wrow<=wrow+1; end else wq_i<=wq_i+1;
        if (beats==1) begin req_addr<=req_addr+req_len;
          if (rem==1) begin if (seg==2) ds<=0; else begin seg<=seg+1; ds<=1; end end else ds<=2; end end
    default: ds<=0;
  endcase
  wire wr_act = ds==3 && rvalid && seg==0, wr_w = ds==3 && rvalid && seg==1;
  // ---- compute control
  reg cb; reg [15:0] i_run,i_mg,i_c,i_r; reg [7:0] i_k; reg [AA-1:0] base, aaddr; reg [WA-1:0] waddr; reg drain; reg [5:0] dcnt;
  wire issue = cb && !drain;
  wire e_run = i_run==c_run-1, e_k = e_run && i_k==c_k-1, e_mg = e_k && i_mg==c_mg-1, e_c = e_mg && i_c==c_wo-1, e_r = e_c && i_r==rows-1;
  assign comp_busy = cb;
  wire [AA-1:0] nbase = e_c ? base+c_jline : base+c_jpix;
  always @(posedge clk) if (rst) begin cb<=0; drain<=0; end
    else if (!cb) begin if (start && rows!=0) begin cb<=1; drain<=0; i_run<=0;i_k<=0;i_mg<=0;i_c<=0;i_r<=0; base<=0;aaddr<=0;waddr<=0; dcnt<=LAT+2; end end
    else if (drain) begin dcnt<=dcnt-1; if (dcnt==1) cb<=0; end
    else begin
      i_run <= e_run?0:i_run+1;
      if (e_run) i_k <= e_k?0:i_k+1;
      if (e_k) i_mg <= e_mg?0:i_mg+1;
      if (e_mg) begin i_c <= e_c?0:i_c+1; base<=nbase; end
      if (e_c) i_r<=i_r+1;
      aaddr <= e_mg ? nbase : e_k ? base : e_run ? aaddr+c_jrow : aaddr+1;
      waddr <= e_mg ? 0 : waddr+1;
      if (e_r) drain<=1;
    end
  // ---- buffers
  wire [P*8-1:0] act; wire [NB*P*8-1:0] wgt; 
  sram #(P*8,AA+1) ab(clk,wr_act,{la_b,ptr[AA-1:0]},{ca_b,aaddr},rdata,act);
  genvar g;
  generate for (g=0;g<NB;g=g+1) begin:wb
    sram #(P*8,WA+1) b(clk,wr_w && wq_i==g,{lw_b,wrow[WA-1:0]},{cw_b,waddr},rdata,wgt[g*P*8+:P*8]); end endgenerate
  // ---- PE array
  reg [LAT:0] vf, vl; always @(posedge clk) if (rst) begin vf<=0; vl<=0; end else begin
    vf<={vf[LAT-1:0],issue && i_run==0 && i_k==0}; vl<={vl[LAT-1:0],issue && e_k}; end
  wire [Q*8-1:0] y; 
  generate for (g=0;g<Q;g=g+1) begin:pe
    wire signed [AW-1:0] t; reg signed [AW-1:0] acc;
    dot #(OP,P,WW,AW) u(clk,act,wgt[g*P*WW+:P*WW],t);
    always @(posedge clk) acc <= (vf[LAT-1] ? 0 : acc) + t;
    wire signed [AW-1:0] a2 = OP==2 ? -acc : acc;
    wire signed [AW-1:0] rnd = $signed((32'd1<<c_rs)>>1);
    wire signed [AW-1:0] sr = a2 + rnd;
    wire signed [AW-1:0] sh = sr >>> c_rs;
    assign y[g*8+:8] = (sh>127) ? 8'd127 : (sh < (c_relu?0:-128)) ? (c_relu?8'd0:8'h80) : sh[7:0];
  end endgenerate
  reg [Q*8-1:0] yq; reg yv; reg [OA-1:0] oaddr;
  always @(posedge clk) begin yq<=y; yv<=vl[LAT] & ~rst; if (start) oaddr<=0; else if (yv) oaddr<=oaddr+1; end
  // output buffer: R banks of P bytes
  wire [15:0] rptr = (beat && ds==3) ? ptr+1 : ptr; wire [R*P*8-1:0] od; reg [3:0] rsel;
  generate for (g=0;g<R;g=g+1) begin:ob
    sram #(P*8,OA+1) b(clk,yv,{co_b,oaddr},{~co_b,rptr[$clog2(R)+:OA]},yq[g*P*8+:P*8],od[g*P*8+:P*8]); end endgenerate
  always @(posedge clk) rsel <= rptr & (R-1);
  assign wdata = od[rsel*P*8+:P*8];
endmodule
`default_nettype wire
